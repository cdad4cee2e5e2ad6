package backup

// Stage names a part of the work on a snapshot, in reports of progress.
type Stage string

// Stages of taking and verifying a snapshot.
const (
	StageWait    Stage = "wait"    // for a turn
	StageReceive Stage = "receive" // from etcd to the spool
	StageStore   Stage = "store"   // from the spool to the store
	StageInspect Stage = "inspect" // the database is read
	StageCompare Stage = "compare" // members are asked for HashKV
	StageVerify  Stage = "verify"  // the stored object is read back
	StageMark    Stage = "mark"    // the result of a verification is written to the store
)

// Stages of a restore.
const (
	StageFetch   Stage = "fetch"   // from the source into the data directory
	StagePrepare Stage = "prepare" // membership, alarms, revision
	StageCopy    Stage = "copy"    // to the other members
	StageSync    Stage = "sync"    // everything is made durable
)

// Progress receives how far a stage is: done of total bytes. Total is 0 where
// it is not known. It may be called from several goroutines.
type Progress func(stage Stage, done, total int64)
