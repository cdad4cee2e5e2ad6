package manifests

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	core "k8s.io/api/core/v1"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// kubelet does with the static pods in a folder what one does, as far as etcd goes: there is a
// process for each file, which is started again when it has ended, and asked to end when the
// file goes. A container's paths are those of the host that are mounted there.
type kubelet struct {
	folder, log string

	end  context.CancelFunc // of the kubelet, as by a power cut: nobody is asked
	done sync.WaitGroup
}

// startKubelet starts one, which ends with the test.
func startKubelet(t *testing.T, folder, log string) *kubelet {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	k := &kubelet{folder: folder, log: log, end: cancel}
	k.done.Go(func() { k.sync(ctx, t) })
	t.Cleanup(k.powerCut)
	return k
}

// powerCut kills all at once, and waits until it is gone.
func (k *kubelet) powerCut() {
	k.end()
	k.done.Wait()
}

// sync starts a pod for each file that has come or was changed, and ends those whose file has gone.
func (k *kubelet) sync(ctx context.Context, t *testing.T) {
	running := map[string]func(){} // by the name and the text of their file
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := k.read()
		if err != nil {
			t.Error(err)
		}
		for id, end := range running {
			if _, ok := found[id]; !ok {
				end()
				delete(running, id)
			}
		}
		for id, text := range found {
			if running[id] == nil {
				running[id] = k.start(ctx, t, text)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// read returns the files of the folder. All but hidden ones count, whatever they are called.
func (k *kubelet) read() (map[string][]byte, error) {
	entries, err := os.ReadDir(k.folder)
	out := map[string][]byte{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(k.folder, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was moved away just now
		}
		if err != nil {
			return nil, err
		}
		out[e.Name()+"\n"+string(text)] = text
	}
	return out, err
}

// start runs the pod of a file until the function that it returns has asked it to end.
func (k *kubelet) start(ctx context.Context, t *testing.T, text []byte) (end func()) {
	ask, asked := context.WithCancel(ctx)
	o, err := decode(text)
	pod, ok := o.(*core.Pod)
	if err != nil || !ok || len(pod.Spec.Containers) != 1 {
		t.Errorf("the kubelet is given no pod of one container: %v\n%s", err, text)
		return asked
	}
	words, err := onHost(pod)
	if err != nil {
		t.Error(err)
		return asked
	}
	_, tag, _ := strings.Cut(pod.Spec.Containers[0].Image, ":")
	words[0] = testserver.Binary(t, tag[:strings.LastIndex(tag, ".")], words[0])
	ended := make(chan struct{})
	k.done.Go(func() {
		defer close(ended)
		// The signal of a dead parent is that of a dead thread.
		runtime.LockOSThread()
		for ask.Err() == nil {
			if err := k.run(ask, ctx, words); err != nil && ask.Err() == nil {
				select { // it is not started again at once
				case <-ask.Done():
				case <-time.After(time.Second):
				}
			}
		}
	})
	return func() { asked(); <-ended }
}

// run runs a container until it ends, is asked to, or is killed with the kubelet.
func (k *kubelet) run(ask, kill context.Context, words []string) error {
	out, err := os.OpenFile(k.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.CommandContext(ask, words[0], words[1:]...)
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error {
		if kill.Err() != nil {
			return cmd.Process.Kill()
		}
		return cmd.Process.Signal(syscall.SIGTERM)
	}
	cmd.WaitDelay = 30 * time.Second // the grace period of a pod
	return cmd.Run()
}

// onHost returns the command of a pod with the paths that it has on the host. The folders are
// made where the pod says so.
func onHost(pod *core.Pod) ([]string, error) {
	places := map[string]string{}
	for _, v := range pod.Spec.Volumes {
		places[v.Name] = v.HostPath.Path
		if *v.HostPath.Type == core.HostPathDirectoryOrCreate {
			if err := os.MkdirAll(v.HostPath.Path, 0o755); err != nil {
				return nil, err
			}
		}
	}
	mounts := map[string]string{}
	c := pod.Spec.Containers[0]
	for _, m := range c.VolumeMounts {
		mounts[path.Clean(m.MountPath)] = places[m.Name]
	}
	var words []string
	for _, w := range c.Command {
		flag, value, _ := strings.Cut(w, "=")
		for at := range maps.Keys(mounts) {
			if rest, ok := strings.CutPrefix(value, at); ok && (rest == "" || rest[0] == '/') {
				w = flag + "=" + mounts[at] + rest
			}
		}
		words = append(words, w)
	}
	return words, nil
}
