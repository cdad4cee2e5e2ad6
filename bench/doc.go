// Package bench measures backupd against the shell script it replaces: etcdctl,
// etcdutl, zstd and curl. Both sides run in turn in one process tree on one
// machine, so the ratios can be trusted where the times cannot:
//
//	go test ./bench -run '^$' -bench . -benchtime 5x -timeout 2h
//
// BACKUPD_BENCH_MIB sets the size of the database; 1024 is the default.
package bench
