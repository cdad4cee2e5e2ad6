package testserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A process is a running server whose output goes to a file.
type process struct {
	cmd     *exec.Cmd
	logPath string
	done    chan struct{} // closed when the process is gone and reaped
	err     error         // how it ended; read only after done
}

// startProcess runs the program with its output appended to logPath.
func startProcess(logPath, path string, args, env []string) (*process, error) {
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = dieWithParent()
	p := &process{cmd: cmd, logPath: logPath, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// On Linux the death signal is tied to the thread that forked, not to
		// the process: if the runtime retired that thread, the server would be
		// killed in the middle of a test. So the thread stays with this
		// goroutine, and the goroutine with the server.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// exited returns how the process ended, or nil while it runs.
func (p *process) exited() error {
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("process ended: %w", p.err)
		}
		return errors.New("process ended")
	default:
		return nil
	}
}

// kill ends the process at once, also when it is stopped, and waits until it
// is reaped. Killing one that has ended is no error.
func (p *process) kill() {
	// The only error is that it has ended already, as wanted.
	_ = p.cmd.Process.Kill()
	<-p.done
}

// terminate asks the process to end and waits up to limit for it to do so.
func (p *process) terminate(limit time.Duration) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		p.kill()
		return fmt.Errorf("process did not end within %v of SIGTERM; killed it", limit)
	}
}

func (p *process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("send %v to process %d: %w", sig, p.pid(), err)
	}
	return nil
}
