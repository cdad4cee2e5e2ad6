package main

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/cluster/replace"
	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// settingForm is how a setting of etcd is written. One in another form than the others of its
// member is of no effect (a variable beside a YAML file), or keeps etcd from starting (beside a flag).
type settingForm string

const (
	yamlForm     settingForm = "in its YAML file"
	flagForm     settingForm = "as flags"
	variableForm settingForm = "as variables"
)

func formOf(s settings.Setting) settingForm {
	switch {
	case strings.HasSuffix(s.Spelled, ":"):
		return yamlForm
	case strings.HasPrefix(s.Spelled, "--"):
		return flagForm
	}
	return variableForm
}

func hasForm(h *settings.Host, form settingForm) bool {
	return slices.ContainsFunc(h.Settings, func(s settings.Setting) bool { return formOf(s) == form })
}

// write writes a setting, as a line.
func (f settingForm) write(name, value string) string {
	switch f {
	case yamlForm:
		if !plainYAML.MatchString(value) {
			value = fmt.Sprintf("%q", value)
		}
		return name + ": " + value
	case flagForm:
		return shellquote.Join("--" + name + "=" + value)
	}
	return fmt.Sprintf("ETCD_%s=%q", strings.ToUpper(strings.ReplaceAll(name, "-", "_")), value)
}

var plainYAML = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._=:/,\[\]-]*$`)

// clusterSettings are the two settings that a new member needs.
func clusterSettings(s replace.Settings) [2][2]string {
	return [2][2]string{
		{"initial-cluster", secret.ShowText(s.InitialCluster)}, {"initial-cluster-state", "existing"},
	}
}

// anyForm writes them for a member of which nobody knows how it is started, but for the flags.
func anyForm(s replace.Settings) string {
	var out strings.Builder
	for _, form := range []settingForm{variableForm, yamlForm} {
		for _, c := range clusterSettings(s) {
			out.WriteString("  " + form.write(c[0], c[1]) + "\n")
		}
		if form == variableForm {
			out.WriteString("or, if it is started with --config-file, in that YAML file:\n")
		}
	}
	return out.String()
}

// printStart says how the new member is started: as the files have it, with two settings changed,
// or else with flags.
func printStart(w io.Writer, host *settings.Host, s replace.Settings) {
	if host == nil {
		fmt.Fprintf(w, "Start the etcd of %s now, with its usual flags and these:\n  %s ...\n"+
			"In a file of variables that is\n%s", s.Name, secret.ShowText(startLine(s)), anyForm(s))
		return
	}
	var told settingForm
	for _, c := range clusterSettings(s) {
		form := formHere(host, c[0])
		if form != told {
			fmt.Fprintf(w, "Set for %s, %s (%s):\n", s.Name, form, wherever(host, form))
		}
		told = form
		fmt.Fprintf(w, "  %s\n", form.write(c[0], c[1]))
	}
	fmt.Fprintf(w, "Then start it: %s\n", cmp.Or(startOf(host), "as usual"))
}

// formHere is the form that a setting has, or must have: that of the one that goes with it, or
// that of the others.
func formHere(h *settings.Host, name string) settingForm {
	for _, like := range []string{name, "initial-cluster", "initial-cluster-state"} {
		if s, ok := h.Setting(like); ok {
			return formOf(s)
		}
	}
	for _, form := range []settingForm{yamlForm, flagForm} {
		if hasForm(h, form) {
			return form
		}
	}
	return variableForm
}

// wherever says where the settings of a form are now, or where they are missing.
func wherever(h *settings.Host, form settingForm) string {
	var out []string
	for _, name := range []string{"initial-cluster", "initial-cluster-state"} {
		if formHere(h, name) != form {
			continue
		}
		if s, ok := h.Setting(name); ok {
			out = append(out, name+" is at "+s.At.String())
			continue
		}
		at := h.Of.String()
		for _, s := range h.Settings { // the start itself may be in another file, as beside YAML
			if formOf(s) != form {
				continue
			}
			if s.At.File != h.Of.File {
				at = s.At.File
			}
			break
		}
		out = append(out, at+" does not set "+name)
	}
	return strings.Join(out, ", ")
}
