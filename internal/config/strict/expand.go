package strict

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var variablePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces ${NAME} by the variable of the environment, and $$ by one dollar
// sign. It works on one value of the parsed file, so the content of a variable is
// never read as YAML.
func expand(text string, lookup func(string) (string, bool)) (string, error) {
	var (
		out  strings.Builder
		errs []error
	)
	for {
		before, rest, found := strings.Cut(text, "$")
		out.WriteString(before)
		if !found {
			return out.String(), errors.Join(errs...)
		}
		if after, ok := strings.CutPrefix(rest, "$"); ok {
			out.WriteByte('$')
			text = after
			continue
		}
		name, after, closed := strings.Cut(strings.TrimPrefix(rest, "{"), "}")
		switch value, set := "", false; {
		case !strings.HasPrefix(rest, "{"):
			errs = append(errs, errors.New("write $$ for a dollar sign, and ${NAME} for a variable of the environment"))
			after = rest
		case !closed:
			return "", errors.New("${ has no closing brace")
		case !variablePattern.MatchString(name):
			errs = append(errs, fmt.Errorf("${%s} does not name a variable of the environment: "+
				"want letters, digits and underscores", name))
		default:
			if value, set = lookup(name); !set {
				errs = append(errs, fmt.Errorf("the environment variable %s is not set", name))
			}
			out.WriteString(value)
		}
		text = after
	}
}
