/*
 * host/statefile.h - a small file whose content is replaced as a whole: after
 * MG_OK the new content is durable, after a crash it is the old or the new one.
 * A flipped bit is made good or refused, and never brings an older content back.
 *
 * Four slots, each with a generation and a checksum (statefile.c); files of the
 * first version, with one, are read too.
 */
#ifndef MG_HOST_STATEFILE_H
#define MG_HOST_STATEFILE_H

#include "core/base.h"

#define MG_STATEFILE_BYTES_MAX	65536

/* MG_E_TOO_BIG: nothing was written.  MG_E_IO: the old content or the new one is there, rely on neither. */
extern mg_status mg_statefile_write(const char *path, const void *body, size_t len) MG_MUST_USE;

/* MG_E_NOT_FOUND, MG_E_FORMAT, MG_E_VERSION, MG_E_CHECKSUM, MG_E_TOO_BIG (over cap), MG_E_IO. */
extern mg_status mg_statefile_read(const char *path, void *body, size_t cap, size_t *len) MG_MUST_USE;

#endif							/* MG_HOST_STATEFILE_H */
