/*
 * core/address.c - see address.h.
 *
 * How: one pass over the bytes, without the locale's idea of letters: what one
 * node accepts, every node accepts.
 */
#include "core/address.h"

#define DIGITS		"0123456789"
#define HEX			DIGITS "abcdefABCDEF"
#define LETTERS		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static bool
all_in(const char *from, const char *to, const char *set)
{
	for (; from < to; from++)
		if (*from == '\0' || strchr(set, *from) == NULL)
			return false;
	return true;
}

const char *
mg_address_trouble(const char *text, size_t len, bool bind)
{
	const char *end = text + len;
	const char *colon = end;
	const char *p;
	long		port = 0;

	if (len >= MG_ADDRESS_BYTES_MAX)
		return "it is too long";
	while (colon > text && colon[-1] != ':')
		colon--;
	if (colon == text || colon == end)
		return "the port is missing";
	p = colon;
	colon--;

	if (!all_in(p, end, DIGITS))
		return "the port is not a number";
	for (; p < end && port <= 65535; p++)
		port = port * 10 + (*p - '0');
	if (port < 1 || port > 65535)
		return "the port is not between 1 and 65535";

	if (colon == text)
		return "the host is missing";
	if (colon - text == 1 && *text == '*')
		return bind ? NULL : "\"*\" is not an address that others can connect to";
	if (*text == '[')
	{
		if (colon - text < 4 || colon[-1] != ']')
			return "the closing bracket of the IPv6 address is missing";
		return all_in(text + 1, colon - 1, HEX ":.") ? NULL :
			"the IPv6 address holds a character that does not belong there";
	}
	if (memchr(text, ':', (size_t) (colon - text)) != NULL)
		return "an IPv6 address must be in brackets";
	return all_in(text, colon, LETTERS DIGITS ".-_") ? NULL :
		"the host holds a character that does not belong there";
}

const char *
mg_address_list(const char *text, char *to, size_t cap, const char **at, size_t *len)
{
	const char *end;
	int			n = 0;

	if (strncmp(text, MG_GCOMM_SCHEME, strlen(MG_GCOMM_SCHEME)) == 0)
		text += strlen(MG_GCOMM_SCHEME);
	end = text + strcspn(text, "?");
	*at = text;
	*len = (size_t) (end - text);
	if (*len >= cap)
		return "the list is too long";
	memcpy(to, text, *len);
	to[*len] = '\0';
	if (*len == 0)
		return "it names nobody";
	while (text <= end)
	{
		size_t		one = strcspn(text, ",?");
		const char *trouble = one == 0 ? "it is empty" : mg_address_trouble(text, one, false);

		if (trouble == NULL && ++n > MG_MEMBERS_MAX)
			trouble = "the list names more members than a cluster can have";
		if (trouble != NULL)
		{
			*at = text;
			*len = one;
			return trouble;
		}
		text += one + 1;
	}
	return NULL;
}
