package backup

// Level says how bad a [Finding] is.
type Level string

// Levels, the better first.
const (
	LevelOK      Level = "ok"
	LevelWarning Level = "warning" // it works, but something should be known
	LevelFailure Level = "failure" // it does not work, or will not when it is needed
)

// Finding is one result of a check.
type Finding struct {
	Section string `json:"section"` // the kind of thing that is checked
	// Subject is the one thing in the section: the name of a cluster or of a
	// repository, the path of a key, a step.
	Subject string `json:"subject"`
	Level   Level  `json:"level"`
	Text    string `json:"text"`
	Hint    string `json:"hint,omitempty"` // what a person can do
}
