/*
 * cli/offer.h - asks a cluster, over its own protocol, who could give a copy of
 * the data to a node that has none.
 */
#ifndef MG_CLI_OFFER_H
#define MG_CLI_OFFER_H

#include "core/node.h"

typedef struct cli_asker
{
	const char *cluster_name;
	const char *node_name;
	const char *listen_address;	/* the new node's: it is free now, and the members must reach it */
	const char *node_address;
	const char *addresses;		/* "host:port,host:port" */
} cli_asker;

/* The members that there are.  False: it has said why. */
extern bool cli_offer(const cli_asker *asker, mg_view *offer);

#endif							/* MG_CLI_OFFER_H */
