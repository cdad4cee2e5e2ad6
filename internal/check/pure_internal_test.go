package check

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check/certificate"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// bad joins the findings that are worse than ok.
func (l *list) bad() string {
	var out []string
	for _, f := range l.findings {
		if f.Level != backup.LevelOK {
			out = append(out, fmt.Sprintf("%s: %s -> %s", f.Level, f.Text, f.Hint))
		}
	}
	return strings.Join(out, "\n")
}

// expect requires that the bad findings have part, or, if part is empty, that there
// are none.
func (l *list) expect(t *testing.T, part string) {
	t.Helper()
	if got := l.bad(); part == "" && got != "" || !strings.Contains(got, part) {
		t.Errorf("got %q, want %q", got, part)
	}
}

func parseLine(t *testing.T, text string) schedule.Line {
	t.Helper()
	line, err := schedule.Parse(text, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func TestCheckRetention(t *testing.T) {
	for name, test := range map[string]struct {
		line string
		r    config.Retention
		want string
	}{
		"Fits": {
			"*/30 * * * *",
			config.Retention{KeepHourly: 24, KeepDaily: 7, KeepWeekly: 4, KeepMonthly: 12, KeepYearly: 3}, "",
		},
		"HourlyOfHourly": {"@hourly", config.Retention{KeepHourly: 24}, ""},
		"NoRule":         {"@hourly", config.Retention{MinVerified: 3}, "grows for ever"},
		"HourlyOfDaily": {
			"@daily", config.Retention{KeepHourly: 24},
			"keep-hourly: 24 can never keep one of every hour: " +
				"the schedule makes one every 24h00m, so it means the last 24",
		},
		"DailyOfDaily":     {"@daily", config.Retention{KeepDaily: 14}, ""},
		"DailyOfWeekly":    {"@weekly", config.Retention{KeepDaily: 14}, "keep-last: 14"},
		"WeeklyOfMonthly":  {"@monthly", config.Retention{KeepWeekly: 4}, "keep-weekly: 4"},
		"MonthlyOfMonthly": {"@monthly", config.Retention{KeepMonthly: 12}, ""},
		"MonthlyOfYearly":  {"@yearly", config.Retention{KeepMonthly: 12}, "keep-monthly: 12"},
		"OfficeHours":      {"0 9-17 * * mon-fri", config.Retention{KeepHourly: 24}, ""}, // dense at times
		"WithinTooShort":   {"@every 6h", config.Retention{KeepWithin: time.Hour}, "keeps only the newest"},
		"WithinFits":       {"@every 6h", config.Retention{KeepWithin: 48 * time.Hour}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := &list{}
			checkRetention(l, &config.Cluster{Retention: test.r}, parseLine(t, test.line), noon)
			l.expect(t, test.want)
		})
	}
}

func TestCheckClockChange(t *testing.T) {
	for name, test := range map[string]struct{ line, want string }{
		"UTC":   {"30 2 * * *", ""},
		"Empty": {"", ""},
		"InTheGap": {
			"CRON_TZ=Europe/Berlin 30 2 * * *",
			"02:30 does not exist on 2027-03-28, when clocks are put forward: on that day the run comes at 03:00",
		},
		"InTheGapWithTabs":  {"CRON_TZ=Europe/Berlin\t30\t2 * * *", "02:30 does not exist on 2027-03-28"},
		"BesideTheGap":      {"CRON_TZ=Europe/Berlin 30 3 * * *", ""},
		"JustBefore":        {"CRON_TZ=Europe/Berlin 59 1 * * *", ""},
		"SouthComesBack":    {"CRON_TZ=Australia/Sydney 30 2 * * *", "02:30 comes twice on 2027-04-04"},
		"OnlyInAutumn":      {"CRON_TZ=America/New_York 30 1 * * *", "01:30 comes twice on 2027-11-07"},
		"EveryHour":         {"CRON_TZ=Europe/Berlin 30 * * * *", ""},
		"OnlyOnWeekdays":    {"CRON_TZ=Europe/Berlin 30 2 * * mon-fri", ""}, // clocks change on Sundays
		"ZoneWithoutChange": {"CRON_TZ=Asia/Tokyo 30 2 * * *", ""},
		"Every":             {"CRON_TZ=Europe/Berlin @every 5h", ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := &list{}
			checkClockChange(l, "snapshot.schedule", test.line, noon)
			l.expect(t, test.want)
		})
	}
}

func TestCheckVersion(t *testing.T) {
	for version, want := range map[string]string{
		"3.7.3":      "",
		"3.6.16":     "",
		"3.6.5":      "",
		"3.5.35":     "",
		"3.5.0":      "etcd-io/etcd#13766",
		"3.5.2":      "etcd-io/etcd#13766",
		"3.5.3":      "etcd-io/etcd#14733",
		"3.5.5":      "etcd-io/etcd#14571",
		"3.5.13":     "upgrade to etcd 3.5.23 or later",
		"3.5.22":     "etcd-io/etcd#20271",
		"3.6.0-rc.1": "etcd-io/etcd#20271",
		"3.4.3":      "etcd-io/etcd#11613",
		"3.4.21":     "etcd-io/etcd#14571",
		"3.4.45":     "no fixes since",
		"3.3.27":     "out of support",
		"3.8.0":      "newer than the versions that this backupd was tested with",
		"4.0.0":      "newer",
		"dev":        "not a version",
		"3.5":        "not a version",
		"3.5.x":      "not a version",
	} {
		t.Run(version, func(t *testing.T) {
			l := &list{}
			checkVersion(l, version)
			l.expect(t, want)
		})
	}
	l := &list{}
	checkVersion(l, "3.5.3")
	if strings.Contains(l.bad(), "13766") {
		t.Errorf("3.5.3 has the fix of #13766: %s", l.bad())
	}
}

func TestValidity(t *testing.T) {
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		from, to time.Duration // from noon
		level    backup.Level
		text     string
	}{
		"Year":           {-day, 364 * day, backup.LevelOK, "is valid until 2027-11-20"},
		"YearSoon":       {-336 * day, 29 * day, backup.LevelWarning, "expires in 29 days, on 2026-12-20 12:00 UTC"},
		"NinetyDays":     {-60 * day, 30 * day, backup.LevelOK, ""},
		"NinetyDaysSoon": {-70 * day, 20 * day, backup.LevelWarning, "expires in 20 days"},
		"HourLong":       {-30 * time.Minute, 30 * time.Minute, backup.LevelOK, ""},
		"HourLongSoon":   {-50 * time.Minute, 10 * time.Minute, backup.LevelWarning, "expires in 10m"},
		"Over":           {-day, -time.Second, backup.LevelFailure, "expired on 2026-11-21 11:59 UTC"},
		"NotYet":         {time.Hour, day, backup.LevelFailure, "is not valid before 2026-11-21 13:00 UTC"},
	} {
		t.Run(name, func(t *testing.T) {
			cert := &x509.Certificate{NotBefore: noon.Add(test.from), NotAfter: noon.Add(test.to)}
			level, text := certificate.Validity(cert, noon)
			if level != test.level || !strings.Contains(text, test.text) {
				t.Errorf("got %s %q, want %s %q", level, text, test.level, test.text)
			}
		})
	}
}

func TestCheckBundle(t *testing.T) {
	const day = 24 * time.Hour
	cert := func(name string, left time.Duration) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: name}, NotBefore: noon.Add(-365 * day), NotAfter: noon.Add(left),
		}
	}
	for name, test := range map[string]struct {
		certs []*x509.Certificate
		want  string
	}{
		"Good": {[]*x509.Certificate{cert("a", 300*day), cert("b", 400*day)}, ""},
		"OneSoon": {
			[]*x509.Certificate{cert("a", 300*day), cert("b", 5*day)},
			"warning: ca.pem: the first of 2 certificates to expire, of CN=b, expires in 5 days",
		},
		"OneOver": {
			[]*x509.Certificate{cert("a", 300*day), cert("b", -day)},
			"warning: ca.pem: one of 2 certificates, of CN=b, expired on",
		},
		"AllOver": {
			[]*x509.Certificate{cert("a", -2*day), cert("b", -day)}, "failure: ca.pem: the certificate expired on",
		},
		"Single":     {[]*x509.Certificate{cert("a", 300*day)}, ""},
		"SingleOver": {[]*x509.Certificate{cert("a", -day)}, "failure: ca.pem: the certificate expired on 2026-11-20"},
	} {
		t.Run(name, func(t *testing.T) {
			l := &list{}
			checkBundle(l, "ca.pem", test.certs, noon)
			l.expect(t, test.want)
		})
	}
}

func TestCheckRoom(t *testing.T) {
	const gib = 1 << 30
	for name, test := range map[string]struct {
		free        int64
		databases   []int64
		concurrency int
		want        string
	}{
		"Enough":     {10 * gib, []int64{gib, 2 * gib}, 2, ""},
		"OneAtATime": {3 * gib, []int64{gib, 2 * gib, 2 * gib}, 1, ""},
		"NotForBoth": {
			3 * gib, []int64{gib, 2 * gib}, 2,
			"warning: 3.0 GiB are free beside the reserve: enough for one database, and not for the 2",
		},
		"NotForOne": {
			2 * gib, []int64{gib, 2 * gib}, 2,
			"failure: 2.0 GiB are free beside the reserve, and the largest database needs 2.2 GiB",
		},
		"NothingIsSeen": {0, nil, 2, ""},
		"Never": {
			0, []int64{120 * gib}, 2,
			"failure: no backup can ever begin: the file system has 100 GiB, 11 GiB must stay free, and a spool needs 132 GiB",
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := &list{}
			checkRoom(l, disk.FileSystem{Total: 100 * gib, Free: test.free + 11*gib}, 10*gib, test.databases, test.concurrency)
			l.expect(t, test.want)
		})
	}
}

// TestCheckRoom_Unknown: a reserve that is more than the file system has is a failure
// although no cluster answers.
func TestCheckRoom_Unknown(t *testing.T) {
	l := &list{}
	checkRoom(l, disk.FileSystem{Total: 1 << 30, Free: 1 << 29}, 1<<30-1, nil, 1)
	l.expect(t, "failure: no backup can ever begin: the file system has 1.0 GiB, 1.1 GiB must stay free")
}

func TestCheckLimit(t *testing.T) {
	const gib = 1 << 30
	for name, test := range map[string]struct {
		limit, used int64
		want        string
	}{
		"None":       {0, 0, ""},
		"Enough":     {10 * gib, 0, ""},
		"Used":       {10 * gib, 9 * gib, "spools already take 9.0 GiB"},
		"NotForBoth": {3 * gib, 0, "warning: daemon.spool.max-bytes is 3.0 GiB, and the 2 databases"},
		"NotForOne": {
			2 * gib, 0, "failure: daemon.spool.max-bytes is 2.0 GiB, and the largest database needs 2.2 GiB",
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := &list{}
			checkLimit(l, test.limit, test.used, []int64{2 * gib, gib}, 2)
			l.expect(t, test.want)
		})
	}
}

func TestCheckKind(t *testing.T) {
	for name, test := range map[string]struct {
		fs   disk.FileSystem
		want string
	}{
		"Disk":      {disk.FileSystem{Files: 1 << 20, Left: 1 << 19}, ""},
		"NoInodes":  {disk.FileSystem{Files: 1 << 20, Left: 12}, "failure: this file system has room for only 12 files more"},
		"FewInodes": {disk.FileSystem{Files: 1 << 20, Left: 120}, "warning: this file system has room for only 120 files"},
		"Btrfs":     {disk.FileSystem{}, ""}, // counts no files
		"Memory":    {disk.FileSystem{Name: "tmpfs", Kind: disk.InMemory}, "it is in memory (tmpfs)"},
		"Network":   {disk.FileSystem{Name: "NFS", Kind: disk.OnNetwork}, "it is on the network (NFS)"},
	} {
		t.Run(name, func(t *testing.T) {
			l := &list{}
			checkKind(l, test.fs)
			l.expect(t, test.want)
		})
	}
}

// TestCheckTogether is about what clusters and repositories tell.
func TestCheckTogether(t *testing.T) {
	manifest := func(id backup.MemberID, took time.Duration, bytes int64) *backup.Manifest {
		return &backup.Manifest{
			ID: "x", FinishedAt: noon.Add(took), Stored: backup.Blob{Bytes: bytes},
			Capture: backup.Capture{ClusterID: id, StartedAt: noon},
		}
	}
	conf := func(name, repo, endpoint string) config.Cluster {
		return config.Cluster{
			Name: name, Repository: repo, Endpoints: []string{endpoint},
			Snapshot:  config.Snapshot{Schedule: "@hourly", Timeout: 2 * time.Hour},
			Retention: config.Retention{KeepLast: 9, MinVerified: 3, MaxBytes: 1 << 20},
		}
	}
	for name, test := range map[string]struct {
		clusters []config.Cluster
		lives    []*live
		stored   []stored
		want     string
	}{
		"Fits": {
			[]config.Cluster{conf("a", "r", "x:1")}, []*live{{id: 7}},
			[]stored{{recent: []*backup.Manifest{manifest(7, time.Minute, 1000)}}}, "",
		},
		"NothingKnown": {[]config.Cluster{conf("a", "r", "x:1")}, []*live{nil}, []stored{{}}, ""},
		"SameCluster": {
			[]config.Cluster{conf("a", "r", "x:1"), conf("b", "r", "y:1")}, []*live{{id: 7}, {id: 7}},
			make([]stored, 2),
			"cluster a has the same etcd cluster id (7) and the same repository",
		},
		"SameClusterOtherRepository": {
			[]config.Cluster{conf("a", "r", "x:1"), conf("b", "s", "y:1")}, []*live{{id: 7}, {id: 7}},
			make([]stored, 2), "",
		},
		"OtherClusterThanBefore": {
			[]config.Cluster{conf("a", "r", "x:1")}, []*live{{id: 7}},
			[]stored{{recent: []*backup.Manifest{manifest(8, time.Minute, 1000)}}},
			"is of etcd cluster 8, and the endpoints belong to 7",
		},
		"TooSlow": {
			[]config.Cluster{conf("a", "r", "x:1")}, []*live{nil},
			[]stored{{recent: []*backup.Manifest{manifest(8, time.Minute, 1), manifest(8, 90*time.Minute, 1)}}},
			"took 1h30m, longer than the schedule's interval of 1h00m",
		},
		"TimeoutIsNear": {
			[]config.Cluster{conf("a", "r", "x:1")}, []*live{nil},
			[]stored{{recent: []*backup.Manifest{manifest(8, 90*time.Minute, 1)}}},
			"snapshot.timeout ends a backup after 2h00m",
		},
		"MaxBytes": {
			[]config.Cluster{conf("a", "r", "x:1")}, []*live{nil},
			[]stored{{recent: []*backup.Manifest{manifest(8, time.Minute, 400<<10)}}},
			"retention.max-bytes of 1.0 MiB can never be kept: " +
				"the 3 newest verified snapshots, which always stay, take 1.2 MiB",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var clusters []*chosen
			for i := range test.clusters {
				clusters = append(clusters, &chosen{&test.clusters[i], test.lives[i], test.stored[i]})
			}
			l := &list{findings: checkTogether(clusters, noon)}
			l.expect(t, test.want)
		})
	}
}

func TestCheckTwins(t *testing.T) {
	conf := &config.Config{Clusters: []config.Cluster{
		{Name: "a", Repository: "r", Endpoints: []string{"https://M1:2379", "https://m2:2379"}},
		{Name: "b", Repository: "r", Endpoints: []string{"m1:2379"}},
		{Name: "c", Repository: "s", Endpoints: []string{"m1:2379"}},
	}}
	for i, want := range []string{"", "cluster a has the same endpoint m1:2379", ""} {
		l := &list{}
		checkTwins(l, &conf.Clusters[i], conf.Clusters)
		l.expect(t, want)
	}
}
