/*
 * host/statefile.h - a small file that is replaced atomically and durably:
 * write to "<path>.tmp", fsync, rename, fsync of the directory.
 *
 * Layout: u32 magic "MGST", u32 version, u32 len, u32 crc32c of the body, body.
 */
#ifndef MG_HOST_STATEFILE_H
#define MG_HOST_STATEFILE_H

#include "core/base.h"

#define MG_STATEFILE_BYTES_MAX	65536

/* MG_E_TOO_BIG, MG_E_IO: the old file is still there whole. */
extern mg_status mg_statefile_write(const char *path, const void *body, size_t len) MG_MUST_USE;

/* MG_E_NOT_FOUND, MG_E_FORMAT, MG_E_VERSION, MG_E_CHECKSUM, MG_E_TOO_BIG (over cap), MG_E_IO. */
extern mg_status mg_statefile_read(const char *path, void *body, size_t cap, size_t *len) MG_MUST_USE;

#endif							/* MG_HOST_STATEFILE_H */
