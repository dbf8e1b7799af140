/*
 * core/cert.c - the certification index.
 *
 * Three parts, all owned by one mg_cert:
 *
 * The table.  One slot per distinct (hash, strength) of the passed writesets
 * above the floor.  A slot keeps the last seqno with that key, its origin, and
 * the last seqno of any other origin; so "the last one by somebody other than
 * X" is exact for every X, and a slot has a fixed size however many members
 * write to the key.  Open addressing with linear probing; the place depends on
 * the hash alone, so that the up to four strengths of a row lie in one run and
 * one walk, mostly within one cache line, sees all that may conflict.
 * Deletion shifts the followers back, there are no tombstones to sweep.
 *
 * The queue.  The keys of each writeset in seqno order, in chunks of a fixed
 * size.  Raising the floor takes them off the front and deletes the slots that
 * no later writeset has touched.
 *
 * The reservations.  Each is one block with its keys, which are also linked
 * into buckets by hash, so that a writeset pays nothing while nobody holds a
 * reservation and one bucket per key otherwise.
 *
 * Why a verdict does not depend on what was purged: a test compares seqnos with
 * last_seen, which is at least the floor; what the purge forgets is at most the
 * floor.  A slot that stays may remember an `other` below the floor which a
 * rebuilt index has never seen; by the same argument nobody can tell.
 *
 * Rejected: a table of lists of writesets per key (memory and a pointer chase
 * for each; a branch key of a busy table would have thousands), and a lazy
 * purge while probing (the key count, and with it the status view, would
 * differ between nodes).
 */
#include "core/cert.h"

#define SLOTS_MIN			1024
#define CHUNK_WORDS			8192	/* 64 KiB */
#define RECORD_HEADER_WORDS	2
#define RESERVED_BUCKETS	1024

/* last == 0: the slot is free. */
typedef struct slot
{
	mg_key		key;
	mg_seqno	last;			/* the last seqno with this key */
	mg_seqno	other;			/* the last one of another origin than `origin`, 0 if none */
	mg_member_id origin;		/* who wrote `last` */
} slot;

/*
 * Records { seqno, n, n keys }, packed.  A writeset that does not fit into the
 * rest of a chunk goes on in the next one, with a record of its own.
 */
typedef struct chunk
{
	struct chunk *next;
	uint32_t	head;			/* first word not yet purged */
	uint32_t	tail;			/* first free word */
	uint64_t	words[CHUNK_WORDS];
} chunk;

typedef struct reserved_key
{
	mg_key		key;
	struct reservation *holder;
	struct reserved_key *next;	/* in its bucket */
	struct reserved_key **link; /* what points at this one */
} reserved_key;

typedef struct reservation
{
	struct reservation *next;
	struct reservation **link;
	mg_seqno	seqno;
	uint64_t	trx_id;
	mg_cert_origin origin;
	uint32_t	n;
	reserved_key keys[];
} reservation;

struct mg_cert
{
	mg_seqno	last;			/* the last seqno seen */
	mg_seqno	floor;

	slot	   *slots;
	size_t		n_slots;		/* a power of two */
	size_t		n_used;

	chunk	   *first;			/* the oldest; NULL if there is none */
	chunk	   *newest;
	chunk	   *spare;			/* one emptied chunk, so that a steady load allocates nothing */

	reservation *reservations;
	size_t		n_reserved;		/* keys in the buckets */
	reserved_key *buckets[RESERVED_BUCKETS];
};

const char *
mg_verdict_name(mg_verdict verdict)
{
	switch (verdict)
	{
		case MG_VERDICT_NONE:
			return "none";
		case MG_VERDICT_PASS:
			return "pass";
		case MG_VERDICT_CONFLICT:
			return "conflict";
		case MG_VERDICT_RESERVED:
			return "reserved";
		case MG_VERDICT_TOO_OLD:
			return "too old";
	}
	return "unknown verdict";
}

static inline mg_seqno
max_seqno(mg_seqno a, mg_seqno b)
{
	return a > b ? a : b;
}

static inline bool
same_hash(mg_key a, mg_key b)
{
	return mg_key_get_hash(a) == mg_key_get_hash(b);
}

static inline bool
keys_conflict(mg_key a, mg_key b)
{
	return same_hash(a, b) &&
		mg_key_strengths_conflict(mg_key_get_strength(a), mg_key_get_strength(b));
}

/* ---- the table ---- */

static inline size_t
slot_home(const mg_cert *cert, mg_key key)
{
	return (size_t) mg_mix64(mg_key_get_hash(key)) & (cert->n_slots - 1);
}

static inline size_t
slot_after(const mg_cert *cert, size_t i)
{
	return (i + 1) & (cert->n_slots - 1);
}

/* The key's slot, or the free one where it would go. */
static slot *
slot_find(const mg_cert *cert, mg_key key)
{
	size_t		i = slot_home(cert, key);

	while (cert->slots[i].last != 0 && cert->slots[i].key != key)
		i = slot_after(cert, i);
	return &cert->slots[i];
}

static void
table_resize(mg_cert *cert, size_t n_slots)
{
	slot	   *old = cert->slots;
	size_t		n_old = cert->n_slots;

	cert->slots = mg_alloc(n_slots * sizeof(slot));
	cert->n_slots = n_slots;
	for (size_t i = 0; i < n_old; i++)
		if (old[i].last != 0)
			*slot_find(cert, old[i].key) = old[i];
	mg_free(old);
}

static void
table_insert(mg_cert *cert, mg_key key, mg_seqno seqno, mg_member_id origin)
{
	slot	   *s = slot_find(cert, key);

	if (s->last != 0)
	{
		if (s->origin != origin)
			s->other = s->last; /* all that is not by `origin` is at most this */
		s->last = seqno;
		s->origin = origin;
		return;
	}
	if ((cert->n_used + 1) * 3 > cert->n_slots * 2)
	{
		table_resize(cert, cert->n_slots * 2);
		s = slot_find(cert, key);
	}
	*s = (slot) {.key = key,.last = seqno,.origin = origin};
	cert->n_used++;
}

/* Frees a slot and moves the followers of its run up, each not before its home. */
static void
table_delete(mg_cert *cert, slot *s)
{
	size_t		mask = cert->n_slots - 1;
	size_t		hole = (size_t) (s - cert->slots);

	for (size_t i = slot_after(cert, hole); cert->slots[i].last != 0; i = slot_after(cert, i))
	{
		size_t		from_home = (i - slot_home(cert, cert->slots[i].key)) & mask;

		if (from_home >= ((i - hole) & mask))
		{
			cert->slots[hole] = cert->slots[i];
			hole = i;
		}
	}
	cert->slots[hole].last = 0;
	cert->n_used--;
}

/* ---- the queue ---- */

static chunk *
queue_grow(mg_cert *cert)
{
	chunk	   *c = cert->spare;

	if (c != NULL)
		cert->spare = NULL;
	else
		c = mg_alloc(sizeof(chunk));
	c->next = NULL;
	c->head = c->tail = 0;
	if (cert->newest != NULL)
		cert->newest->next = c;
	else
		cert->first = c;
	cert->newest = c;
	return c;
}

static void
queue_drop_first(mg_cert *cert)
{
	chunk	   *c = cert->first;

	cert->first = c->next;
	if (cert->first == NULL)
		cert->newest = NULL;
	if (cert->spare == NULL)
		cert->spare = c;
	else
		mg_free(c);
}

/* Puts all keys of a passed writeset into the table and the queue. */
static void
insert_keys(mg_cert *cert, mg_seqno seqno, mg_member_id origin, const mg_writeset *ws)
{
	uint32_t	n_keys = ws->header.n_keys;
	chunk	   *c = cert->newest;

	for (uint32_t done = 0; done < n_keys;)
	{
		uint32_t	n = n_keys - done;
		uint64_t   *to;

		if (c == NULL || CHUNK_WORDS - c->tail <= RECORD_HEADER_WORDS)
			c = queue_grow(cert);
		if (n > CHUNK_WORDS - c->tail - RECORD_HEADER_WORDS)
			n = CHUNK_WORDS - c->tail - RECORD_HEADER_WORDS;

		to = &c->words[c->tail];
		*to++ = seqno;
		*to++ = n;
		for (uint32_t i = 0; i < n; i++)
		{
			to[i] = mg_writeset_key(ws, done + i);
			table_insert(cert, to[i], seqno, origin);
		}
		c->tail += RECORD_HEADER_WORDS + n;
		done += n;
	}
}

/* Forgets the keys of one record, save those that a later writeset has too. */
static void
purge_record(mg_cert *cert, mg_seqno seqno, const uint64_t *keys, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
	{
		slot	   *s = slot_find(cert, keys[i]);

		MG_ASSERT(s->last >= seqno);	/* the last record of a key deletes its slot */
		if (s->last == seqno)
			table_delete(cert, s);
	}
}

void
mg_cert_set_floor(mg_cert *cert, mg_seqno floor)
{
	chunk	   *c;

	if (floor > cert->last)
		floor = cert->last;		/* it came from a peer: nothing to assert */
	if (floor <= cert->floor)
		return;
	cert->floor = floor;

	while ((c = cert->first) != NULL)
	{
		const uint64_t *record = &c->words[c->head];

		if (c->head == c->tail)
		{
			queue_drop_first(cert);
			continue;
		}
		if (record[0] > floor)
			break;
		purge_record(cert, record[0], record + RECORD_HEADER_WORDS, record[1]);
		c->head += RECORD_HEADER_WORDS + (uint32_t) record[1];
	}

	/* A quarter of the size leaves it under a quarter full: no seesaw with growth. */
	while (cert->n_slots > SLOTS_MIN && cert->n_used < cert->n_slots / 16)
		table_resize(cert, cert->n_slots / 4 > SLOTS_MIN ? cert->n_slots / 4 : SLOTS_MIN);
}

/* ---- reservations ---- */

static inline size_t
bucket_of(mg_key key)
{
	return (size_t) mg_mix64(mg_key_get_hash(key)) & (RESERVED_BUCKETS - 1);
}

static void
reservation_open(mg_cert *cert, mg_seqno seqno, mg_cert_origin origin, const mg_writeset *ws)
{
	uint32_t	n = ws->header.n_keys;
	reservation *r = mg_alloc(sizeof(reservation) + n * sizeof(reserved_key));

	r->seqno = seqno;
	r->origin = origin;
	r->trx_id = ws->header.trx_id;
	r->n = n;
	r->link = &cert->reservations;
	r->next = cert->reservations;
	if (r->next != NULL)
		r->next->link = &r->next;
	cert->reservations = r;

	for (uint32_t i = 0; i < n; i++)
	{
		reserved_key *k = &r->keys[i];

		k->key = mg_writeset_key(ws, i);
		k->holder = r;
		k->link = &cert->buckets[bucket_of(k->key)];
		k->next = *k->link;
		if (k->next != NULL)
			k->next->link = &k->next;
		*k->link = k;
	}
	cert->n_reserved += n;
}

static void
reservation_close(mg_cert *cert, reservation *r)
{
	for (uint32_t i = 0; i < r->n; i++)
	{
		*r->keys[i].link = r->keys[i].next;
		if (r->keys[i].next != NULL)
			r->keys[i].next->link = r->keys[i].link;
	}
	cert->n_reserved -= r->n;
	*r->link = r->next;
	if (r->next != NULL)
		r->next->link = r->link;
	mg_free(r);
}

static void
reservations_release(mg_cert *cert, mg_cert_origin origin, uint64_t trx_id)
{
	for (reservation *r = cert->reservations, *next; r != NULL; r = next)
	{
		next = r->next;
		if (r->origin.member == origin.member && r->origin.life == origin.life && r->trx_id == trx_id)
			reservation_close(cert, r);
	}
}

/* The seqno of the newest reservation of another member in the key's way, or 0. */
static mg_seqno
reserved_against(const mg_cert *cert, mg_member_id origin, mg_key key)
{
	mg_seqno	against = 0;

	for (const reserved_key *k = cert->buckets[bucket_of(key)]; k != NULL; k = k->next)
		if (k->holder->origin.member != origin && keys_conflict(k->key, key))
			against = max_seqno(against, k->holder->seqno);
	return against;
}

/* ---- the verdict ---- */

/*
 * Raises *any to the last seqno that holds a key conflicting with this one, and
 * *foreign to the last such of another member.
 */
static inline void
probe(const mg_cert *cert, mg_member_id origin, mg_key key, mg_seqno *any, mg_seqno *foreign)
{
	const slot *s;

	for (size_t i = slot_home(cert, key); (s = &cert->slots[i])->last != 0; i = slot_after(cert, i))
		if (keys_conflict(s->key, key))
		{
			*any = max_seqno(*any, s->last);
			*foreign = max_seqno(*foreign, s->origin != origin ? s->last : s->other);
		}
}

/* Changes nothing. */
static mg_cert_result
judge(const mg_cert *cert, mg_seqno seqno, mg_member_id origin, const mg_writeset *ws)
{
	uint32_t	n_keys = ws->header.n_keys;
	mg_seqno	any = cert->floor;
	mg_seqno	foreign = 0;
	mg_seqno	reserved = 0;

	if (ws->header.last_seen < cert->floor || ws->header.last_seen >= seqno)
		return (mg_cert_result) {.verdict = MG_VERDICT_TOO_OLD};

	if (cert->n_reserved > 0)
		for (uint32_t i = 0; i < n_keys; i++)
			reserved = max_seqno(reserved, reserved_against(cert, origin, mg_writeset_key(ws, i)));
	if (reserved > 0)
		return (mg_cert_result) {.verdict = MG_VERDICT_RESERVED,.against = reserved};

	for (uint32_t i = 0; i < n_keys; i++)
		probe(cert, origin, mg_writeset_key(ws, i), &any, &foreign);
	if (foreign > ws->header.last_seen && (ws->header.flags & MG_WS_RESERVE) == 0)
		return (mg_cert_result) {.verdict = MG_VERDICT_CONFLICT,.against = foreign};
	return (mg_cert_result) {.verdict = MG_VERDICT_PASS,.depends = any};
}

/* What the writeset leaves behind, the same whether it was judged here or elsewhere. */
static void
conclude(mg_cert *cert, mg_seqno seqno, mg_cert_origin origin, const mg_writeset *ws, bool passed)
{
	if ((ws->header.flags & MG_WS_RELEASE) != 0)
		reservations_release(cert, origin, ws->header.trx_id);
	if (!passed)
		return;
	if ((ws->header.flags & MG_WS_RESERVE) != 0)
		reservation_open(cert, seqno, origin, ws);
	else
		insert_keys(cert, seqno, origin.member, ws);
}

void
mg_cert_skip(mg_cert *cert, mg_seqno seqno)
{
	MG_ASSERT(seqno == cert->last + 1);
	cert->last = seqno;
}

mg_cert_result
mg_cert_certify(mg_cert *cert, mg_seqno seqno, mg_cert_origin origin, const mg_writeset *ws)
{
	mg_cert_result result;

	mg_cert_skip(cert, seqno);
	result = judge(cert, seqno, origin.member, ws);
	conclude(cert, seqno, origin, ws, result.verdict == MG_VERDICT_PASS);
	return result;
}

void
mg_cert_insert_known(mg_cert *cert, mg_seqno seqno, mg_cert_origin origin, const mg_writeset *ws,
					 bool passed)
{
	MG_ASSERT(ws != NULL || !passed);
	mg_cert_skip(cert, seqno);
	if (ws != NULL)
		conclude(cert, seqno, origin, ws, passed);
}

/* ---- making and looking ---- */

mg_cert *
mg_cert_new(mg_seqno base)
{
	mg_cert    *cert = mg_alloc(sizeof(mg_cert));

	cert->last = cert->floor = base;
	table_resize(cert, SLOTS_MIN);
	return cert;
}

void
mg_cert_free(mg_cert *cert)
{
	if (cert == NULL)
		return;
	while (cert->reservations != NULL)
		reservation_close(cert, cert->reservations);
	while (cert->first != NULL)
		queue_drop_first(cert);
	mg_free(cert->spare);
	mg_free(cert->slots);
	mg_free(cert);
}

size_t
mg_cert_key_count(const mg_cert *cert)
{
	return cert->n_used;
}

size_t
mg_cert_reserved_count(const mg_cert *cert)
{
	return cert->n_reserved;
}

mg_seqno
mg_cert_floor(const mg_cert *cert)
{
	return cert->floor;
}

mg_seqno
mg_cert_last(const mg_cert *cert)
{
	return cert->last;
}

void
mg_cert_keep_members(mg_cert *cert, const mg_cert_origin *members, uint32_t n)
{
	for (reservation *r = cert->reservations, *next; r != NULL; r = next)
	{
		bool		stays = false;

		next = r->next;
		for (uint32_t i = 0; i < n; i++)
			stays = stays || (members[i].member == r->origin.member && members[i].life == r->origin.life);
		if (!stays)
			reservation_close(cert, r);
	}
}
