package history

// Head is a snapshot of a timeline, to compare another one with.
type Head struct {
	Timeline string
	Evidence Evidence
	// Unordered says that nobody knows which of the two was taken first.
	Unordered bool
}

// Placement is the timeline of a new snapshot.
type Placement struct {
	// Timeline is "" for a new one.
	Timeline string
	// Verdict is about the chosen timeline, or for a new one about the newest head.
	Verdict Verdict
	// Against has the verdict about each head, in the order of the heads.
	Against []Against
}

// Against is the verdict about one head.
type Against struct {
	Timeline string
	Verdict  Verdict
}

// Place chooses among the heads, the newest timeline first. All heads must have been
// taken before next: they must be of a listing that was read before next was taken.
//
// Heads may be unordered: those of a snapshot that is stored late are the ones that are
// stored next to it in each timeline, before it and after it. It must fit to all heads of
// a timeline.
func Place(heads []Head, next Evidence) Placement {
	if len(heads) == 0 {
		return Placement{Verdict: Verdict{Reason: "It is the first snapshot of the cluster."}}
	}
	p := Placement{}
	var timelines []Against // the newest first, with what speaks most against each
	for _, h := range heads {
		judge := Judge
		if h.Unordered {
			judge = Fits
		}
		a := Against{h.Timeline, judge(h.Evidence, next)}
		p.Against = append(p.Against, a)
		timelines = merge(timelines, a)
	}
	best := timelines[0]
	for _, t := range timelines[1:] {
		if rank(t.Verdict) < rank(best.Verdict) {
			best = t
		}
	}
	if best.Verdict.Relation == Contradicts {
		p.Verdict = timelines[0].Verdict
		return p
	}
	p.Timeline, p.Verdict = best.Timeline, best.Verdict
	return p
}

// merge adds a verdict to those about the same timeline. The worst relation counts,
// and the most that is shared.
func merge(timelines []Against, a Against) []Against {
	for i := range timelines {
		t := &timelines[i]
		if t.Timeline != a.Timeline {
			continue
		}
		shared := max(t.Verdict.Shared, a.Verdict.Shared)
		if a.Verdict.Relation > t.Verdict.Relation ||
			a.Verdict.Relation == t.Verdict.Relation && a.Verdict.Shared > t.Verdict.Shared {
			t.Verdict = a.Verdict
		}
		t.Verdict.Shared = shared
		return timelines
	}
	return append(timelines, a)
}

// rank is smaller for what is more likely. That keys are the same says more than a
// position: a cluster that was empty when it was seen contradicts nothing.
func rank(v Verdict) int {
	switch {
	case v.Relation == Contradicts:
		return 4
	case v.Relation == Continues && v.Shared > 0:
		return 0
	case v.Shared > 0:
		return 1
	case v.Relation == Continues:
		return 2
	}
	return 3
}
