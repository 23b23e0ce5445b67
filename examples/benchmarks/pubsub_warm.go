package main

import (
	"slices"
	"time"
)

const (
	warmBacklog = 5000 // messages, again and again
	warmSystem  = pullsName
)

// freshEmulator is called before each measurement. The emulator keeps every message
// that it ever got, also of topics that are gone, and gets slower by and by: so
// it's replaced where it's ours. A new one is slow too, until Java has compiled it:
// so it's given some work first.
func (o options) freshEmulator() error {
	if err := o.emulator.stop(); err != nil {
		return err
	}
	i := slices.IndexFunc(pubsubContenders, func(c pubsubContender) bool { return c.name == warmSystem })
	brief := o
	brief.pubsubMessages, brief.pubsubRound = warmBacklog, o.pubsubWarm/10
	for end := time.Now().Add(o.pubsubWarm); time.Now().Before(end); {
		if _, err := pubsubConsume(brief, pubsubContenders[i], 0); err != nil {
			return err
		}
		if _, err := pubsubPublish(brief, pubsubContenders[i]); err != nil {
			return err
		}
	}
	return nil
}
