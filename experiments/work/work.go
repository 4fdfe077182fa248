// Package work shares work among processes on any number of machines, without a
// server: units of work go in, each is done at least once, and of units that were
// done twice the first result stays. All that the processes, called workers, have
// in common is a folder; what they leave in it, below .work, only spares double
// work. The rules are those that NFS and POSIX keep: names are made by link(2) and
// O_EXCL, never by locks, and no clock of a client counts.
package work
