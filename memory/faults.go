package memory

type faults struct{}
