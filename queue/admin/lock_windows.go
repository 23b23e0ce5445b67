package admin

import (
	"errors"
	"io/fs"
	"syscall"
)

// What package syscall has no names for.
const (
	sharingViolation = syscall.Errno(32)
	deleteOnClose    = 0x04000000
)

// lock takes a file for this process: nobody else can open it. The system closes, and so
// removes it when the process ends.
func lock(name string) (release func(), held bool, err error) {
	path, err := syscall.UTF16PtrFromString(name)
	if err != nil {
		return nil, false, err
	}
	h, err := syscall.CreateFile(path, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL|deleteOnClose, 0)
	switch {
	case errors.Is(err, sharingViolation), errors.Is(err, syscall.ERROR_ACCESS_DENIED): // the latter while it's being removed
		return nil, true, nil
	case err != nil:
		return nil, false, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	return func() { _ = syscall.CloseHandle(h) }, false, nil
}
