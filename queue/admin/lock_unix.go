//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package admin

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// lock takes a file for this process. The system gives it back when the process ends.
func lock(name string) (release func(), held bool, err error) {
	for {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the application's own folder
		if err != nil {
			return nil, false, err
		}
		for {
			if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		if err != nil {
			_ = f.Close() // there's nothing in it
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, true, nil
			}
			return nil, false, &fs.PathError{Op: "lock", Path: name, Err: err}
		}
		if isAt(f, name) {
			return func() {
				_ = os.Remove(name) // before somebody else has it
				_ = f.Close()       // which gives it back
			}, false, nil
		}
		_ = f.Close() // whoever had it has removed it in between
	}
}

func isAt(f *os.File, name string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(name)
	return err == nil && os.SameFile(mine, there)
}
