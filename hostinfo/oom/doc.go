// Package oom reads from the kernel's log which processes were killed because memory ran out.
//
// [Watch] follows /dev/kmsg until its ctx ends; [Parser] is what it takes the records apart with. Records that user
// programs wrote are not believed. Nothing is kept but the kill under way.
package oom
