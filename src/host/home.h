/*
 * host/home.h - is a directory the one in which its files were written, or a copy?
 *
 * What makes a process the member that it was lies in files.  A copy of them
 * (cp, rsync, tar of a node's data directory) must not become a second process
 * of the same member.  So the directory carries a note of its own inode number
 * and time of birth, which no copying program can take along.
 *
 * Not noticed: a copy of the whole block device (a snapshot of a volume, a
 * clone of a virtual machine), and old files put back into the same directory.
 */
#ifndef MG_HOST_HOME_H
#define MG_HOST_HOME_H

#include "core/base.h"

typedef enum mg_home
{
	MG_HOME_NONE = 0,			/* no note: a new directory, or one from before there were notes */
	MG_HOME_OWN,
	MG_HOME_COPY
} mg_home;

/* MG_E_IO (errno): the directory, or a note that is there, cannot be read.  A damaged note counts as none. */
extern mg_status mg_home_look(const char *dir, mg_home *out) MG_MUST_USE;

/* Durably: this directory is where its files belong.  MG_E_IO: nothing changed. */
extern mg_status mg_home_settle(const char *dir) MG_MUST_USE;

#endif							/* MG_HOST_HOME_H */
