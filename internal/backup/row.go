package backup

import "time"

// Unreadable is the state in a [Row] whose manifest could not be read. Only who
// tried to read it can say so.
const Unreadable State = "unreadable"

// Row is one snapshot as every listing for machines writes it: those of the
// commands list and prune, and those of the API.
type Row struct {
	Cluster     string     `json:"cluster"`
	ID          SnapshotID `json:"id"`
	Time        time.Time  `json:"startedAt" jsonschema:"when the snapshot began"`
	Revision    Revision   `json:"revision"`
	Timeline    string     `json:"timeline" jsonschema:"the history that it is of"`
	State       State      `json:"state" jsonschema:"verified, unconfirmed, suspect or damaged"`
	Reason      string     `json:"reason,omitempty" jsonschema:"how it is damaged, or why it is suspect or unconfirmed"`
	Untimely    bool       `json:"untimely,omitempty" jsonschema:"whether its time contradicts the order of the history"`
	Future      bool       `json:"future,omitempty" jsonschema:"whether it was begun by a clock that was ahead"`
	PlainBytes  int64      `json:"plainBytes,omitempty" jsonschema:"size of the database if the manifest was read"`
	StoredBytes int64      `json:"storedBytes"`
	Encoding    string     `json:"encoding" jsonschema:"how the data is stored; empty if it is not there"`
	Pinned      bool       `json:"pinned" jsonschema:"whether it must stay"`
	PinReason   string     `json:"pinReason,omitempty" jsonschema:"why it must stay, if its pin was read"`
}

// PruneRow is a [Row] with the decision of a prune.
type PruneRow struct {
	Row
	Keep    bool     `json:"keep"`
	Reasons []string `json:"reasons"`
}
