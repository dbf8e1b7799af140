/*
 * core/address.h - the texts that say where a node is: "host:port", and
 * "gcomm://host:port,host:port?option=value" for where members are.
 *
 * Decides: which of them are well-formed.  What is wrong is said in words that
 * complete "Address "…" is not valid: ….".
 */
#ifndef MG_CORE_ADDRESS_H
#define MG_CORE_ADDRESS_H

#include "core/base.h"

#define MG_GCOMM_SCHEME "gcomm://"

/*
 * Is [text, text+len) a "host:port"?  A host is a name, an IPv4 address, an
 * IPv6 address in brackets or, if `bind`, "*".  Gives NULL, or what is wrong.
 */
extern const char *mg_address_trouble(const char *text, size_t len, bool bind);

/*
 * Writes the list of "gcomm://a:1,b:2?option=value" (the scheme may be missing)
 * as "a:1,b:2" into `to`, each address checked.  Gives NULL, or what is wrong,
 * and then [*at, *at+*len) is the address that is.
 */
extern const char *mg_address_list(const char *text, char *to, size_t cap, const char **at, size_t *len);

#endif							/* MG_CORE_ADDRESS_H */
