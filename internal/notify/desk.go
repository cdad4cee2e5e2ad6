package notify

import "time"

// desk knows what one receiver has heard. An event counts as heard when it was
// delivered. One that was not is armed: it is delivered later, unless a newer one of
// the same task takes its place.
type desk struct {
	told  map[task]notice // what the receiver believes: the troubles that it knows and whose end it does not
	onWay map[task]notice // the newest that was queued and has not found its end
	armed map[task]Event
}

// notice is one event in short.
type notice struct {
	kind      Kind
	since, at time.Time
}

func noticeOf(e Event) notice { return notice{e.Kind, e.Since, e.Time} }

func newDesk() *desk {
	return &desk{told: map[task]notice{}, onWay: map[task]notice{}, armed: map[task]Event{}}
}

// consider returns whether a receiver is to be told of the end of a job, and as what.
// While a trouble lasts people are reminded of it from time to time. A ping URL gets
// every event.
func (d *desk) consider(t *Target, e Event) (Event, bool) {
	last, waits := d.onWay[e.task()]
	if !waits {
		last = d.told[e.task()]
	}
	missed := d.armed[e.task()]
	delete(d.armed, e.task()) // e is newer
	switch {
	case e.Kind != Succeeded:
	case last.kind.trouble():
		e.Kind, e.Since, e.ends = Recovered, last.since, last.kind
	case missed.Kind == Recovered:
		e.Kind, e.Since, e.ends = Recovered, missed.Since, missed.ends
	}
	switch {
	case !t.wants(e), e.quiet():
		return e, false
	case t.pings():
	case e.Kind == Recovered && !last.kind.trouble() && !t.ended(e):
		return e, false
	case e.Kind.trouble() && last.kind == e.Kind && e.Time.Sub(last.at).Abs() < e.remindAfter():
		// The absolute age, since a clock that was set back must not delay the next report.
		return e, false
	}
	d.onWay[e.task()] = noticeOf(e)
	return e, true
}

// delivered notes that e was heard.
func (d *desk) delivered(e Event) {
	switch {
	case e.Kind.trouble():
		d.told[e.task()] = noticeOf(e)
	case e.Kind == Recovered:
		delete(d.told, e.task())
	}
	d.arrived(e)
}

// failed notes that e was not heard.
func (d *desk) failed(t *Target, e Event) {
	if !d.arrived(e) {
		return // a newer one takes its place, or nobody counts on it
	}
	if e.Kind.trouble() || e.Kind == Recovered || e.Kind == Succeeded && t.pings() {
		d.armed[e.task()] = e
	}
}

// arrived reports whether e was the newest event of its task that was on its way.
func (d *desk) arrived(e Event) bool {
	newest := d.onWay[e.task()] == noticeOf(e)
	if newest {
		delete(d.onWay, e.task())
	}
	return newest
}

// again returns the armed events, which are on their way now.
func (d *desk) again() []Event {
	var out []Event
	for of, e := range d.armed {
		d.onWay[of] = noticeOf(e)
		out = append(out, e)
	}
	clear(d.armed)
	return out
}
