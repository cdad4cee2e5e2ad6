package restore

// SetBefore makes f see every change by which a restore becomes visible, before
// it is made. An error from f is returned in its place.
func (r *Request) SetBefore(f func(op, path string) error) { r.before = f }
