# Puts the fragments of changelog/unreleased, sorted by their first word, as a section above the
# sections of CHANGELOG.md, which is the first file.
function flush() {
  if (entry == "") return
  sub(/\n+$/, "", entry)
  gsub(/\n/, "\n  ", entry)
  gsub(/\n  \n/, "\n\n", entry)
  list[kind] = list[kind] "- " entry "\n"
  entry = ""
}
FNR == NR { log_[++lines] = $0; next }
FNR == 1 { flush(); kind = "" }
match($0, /^(New|Changed|Fixed|Fix|Removed|Security): /) {
  flush()
  kind = substr($0, 1, RLENGTH - 2)
  if (kind == "Fix") kind = "Fixed"
  $0 = substr($0, RLENGTH + 1)
  $0 = toupper(substr($0, 1, 1)) substr($0, 2)
}
kind == "" {
  print FILENAME ": begins with none of New, Changed, Fixed, Removed, Security" >"/dev/stderr"
  failed = 1
  exit 1
}
{ entry = entry $0 "\n" }
END {
  if (failed) exit 1
  flush()
  for (i = 1; i <= lines && log_[i] !~ /^## /; i++) print log_[i]
  if (i > lines) print ""
  printf "## %s (%s)\n", version, day
  split("Security New Changed Fixed Removed", order, " ")
  for (k = 1; k <= 5; k++) if (order[k] in list) printf "\n### %s\n\n%s", order[k], list[order[k]]
  if (i <= lines) print ""
  for (; i <= lines; i++) print log_[i]
}
