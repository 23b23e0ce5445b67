package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// FileStore is a Store in a folder, which it creates: one JSON file for each operation.
// A file is replaced as a whole, so that a crash leaves the old or the new one.
//
// It's a SharedStore for the processes of one machine: what one of them has under way,
// the others see, and can pause and cancel, but not resume. Whose process has died isn't
// waited for, as the system gives its locks back (flock; on Windows an exclusive open
// file). Over a network's file system that's only as good as its locks. Elsewhere than
// on Windows, Linux, macOS and the BSDs there are none: there, one process at a time
// should use the folder.
type FileStore string

var _ SharedStore = FileStore("")

const (
	operationFile = ".redrive.json"
	requestFile   = ".request.json"
	lockFile      = ".lock"
)

// lockName is the names that Lock takes.
var lockName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$|^queue\.[A-Za-z0-9_.-]{1,128}$`)

// path is where something of an operation is.
func (s FileStore) path(id, what string) (string, error) {
	if !operationID.MatchString(id) {
		return "", fmt.Errorf("admin: %q can't be the name of a file", id)
	}
	return filepath.Join(string(s), id+what), nil
}

// Save implements Store.
func (s FileStore) Save(_ context.Context, op Operation) error {
	op.Elsewhere = false // that's for who looks
	return s.write(op.ID, operationFile, op)
}

// write replaces a file, durably.
func (s FileStore) write(id, what string, v any) (err error) {
	name, err := s.path(id, what)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(s), 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(string(s), "."+id+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // it only takes room
		}
	}()
	_, err = f.Write(append(data, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncFolder(string(s))
}

// syncFolder makes a rename durable.
func syncFolder(name string) error {
	if runtime.GOOS == "windows" {
		return nil // does it by itself, and can't be told to
	}
	d, err := os.Open(name) //nolint:gosec // the application's own folder
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Load implements Store.
func (s FileStore) Load(context.Context) ([]Operation, error) {
	entries, err := os.ReadDir(string(s))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ops []Operation
	unreadable := map[string]error{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), operationFile)
		if !ok {
			continue
		}
		op, err := s.load(id)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was removed just now
		case err != nil:
			unreadable[id] = err
		default:
			ops = append(ops, op)
		}
	}
	if len(unreadable) > 0 {
		return ops, &UnreadableError{unreadable}
	}
	return ops, nil
}

func (s FileStore) load(id string) (op Operation, err error) {
	name, err := s.path(id, operationFile)
	if err != nil {
		return op, err
	}
	data, err := os.ReadFile(name) //nolint:gosec // the application's own folder
	if err != nil {
		return op, err
	}
	if err := json.Unmarshal(data, &op); err != nil {
		return op, fmt.Errorf("%s: %w", name, err)
	}
	if op.ID != id {
		return op, fmt.Errorf("%s: is of the operation %q", name, op.ID)
	}
	return op, nil
}

// Remove implements Store.
func (s FileStore) Remove(_ context.Context, id string) error {
	name, err := s.path(id, operationFile)
	if err != nil {
		return err
	}
	litter, err := filepath.Glob(filepath.Join(string(s), "."+id+".*")) // of a crash in the middle of a Save
	for _, name := range append(litter, filepath.Join(string(s), id+requestFile)) {
		_ = os.Remove(name) // it only takes room
	}
	if err := errors.Join(err, os.Remove(name)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return syncFolder(string(s))
}

// Lock implements SharedStore.
func (s FileStore) Lock(_ context.Context, name string) (release func(), held bool, err error) {
	if !lockName.MatchString(name) {
		return nil, false, fmt.Errorf("admin: %q can't be the name of a lock", name)
	}
	if err := os.MkdirAll(string(s), 0o750); err != nil {
		return nil, false, err
	}
	return lock(filepath.Join(string(s), name+lockFile))
}

// Ask implements SharedStore.
func (s FileStore) Ask(_ context.Context, id string, r Request) error {
	return s.write(id, requestFile, r)
}

// Asked implements SharedStore.
func (s FileStore) Asked(_ context.Context, id string) (r Request, ok bool, err error) {
	name, err := s.path(id, requestFile)
	if err != nil {
		return r, false, err
	}
	data, err := os.ReadFile(name) //nolint:gosec // the application's own folder
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	if err := os.Remove(name); err != nil {
		return r, false, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, false, fmt.Errorf("%s: %w", name, err)
	}
	return r, true, nil
}
