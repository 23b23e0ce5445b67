package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Store keeps operations, so that they can go on after a restart. Save replaces what it
// has of the same ID, and is durable when it returns. Its methods may be called
// concurrently.
type Store interface {
	Save(ctx context.Context, op Operation) error
	Load(ctx context.Context) ([]Operation, error)
}

// nowhere is the Store of those who need none.
type nowhere struct{}

func (nowhere) Save(context.Context, Operation) error     { return nil }
func (nowhere) Load(context.Context) ([]Operation, error) { return nil, nil }

// FileStore is a Store in a folder, which it creates: one JSON file for each operation.
// A file is replaced as a whole, so that a crash leaves the old or the new one. One
// process at a time should use the folder: another one takes what's under way for
// Interrupted, can't pause or cancel it, and of two that save an operation the last wins.
// Nothing is ever removed; an operation that has ended may be, by hand.
type FileStore string

const operationFile = ".redrive.json"

// Save implements Store.
func (s FileStore) Save(_ context.Context, op Operation) (err error) {
	if !operationID.MatchString(op.ID) {
		return fmt.Errorf("admin: %q can't be the name of a file", op.ID)
	}
	data, err := json.MarshalIndent(op, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(s), 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(string(s), "."+op.ID+".*")
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
	if err := os.Rename(f.Name(), filepath.Join(string(s), op.ID+operationFile)); err != nil {
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
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), operationFile) {
			continue
		}
		name := filepath.Join(string(s), e.Name())
		data, err := os.ReadFile(name) //nolint:gosec // the application's own folder
		if err != nil {
			return nil, err
		}
		var op Operation
		if err := json.Unmarshal(data, &op); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if op.ID != strings.TrimSuffix(e.Name(), operationFile) {
			return nil, fmt.Errorf("%s: is of the operation %q", name, op.ID)
		}
		ops = append(ops, op)
	}
	return ops, nil
}
