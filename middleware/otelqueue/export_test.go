package otelqueue

// ParseTraceparent is parseTraceparent.
var ParseTraceparent = parseTraceparent
