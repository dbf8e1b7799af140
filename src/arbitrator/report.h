/*
 * arbitrator/report.h - the arbitrator's log: one event, one line, to standard
 * error or to a file that is opened again on request (log rotation).
 *
 * A line: "2026-01-31 12:00:00.123 UTC [4711] INFO:  text".  One thread.
 */
#ifndef MG_ARBITRATOR_REPORT_H
#define MG_ARBITRATOR_REPORT_H

#include "arbitrator/options.h"

/* "" is standard error.  False with errno: the old one stays. */
extern bool mg_report_to(const char *path);
extern void mg_report_level(mg_log_level level);
extern void mg_report(mg_log_level level, const char *format,...) __attribute__((format(printf, 2, 3)));

#endif							/* MG_ARBITRATOR_REPORT_H */
