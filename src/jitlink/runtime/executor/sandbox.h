/* What the parts of the sandbox have in common. */
#ifndef JITLINK_SANDBOX_H
#define JITLINK_SANDBOX_H

#include "executor.h"

/* The value of an option; null if it is not given. */
const char *option(const char *name);

/* A reason why something is unavailable, with that of errno. */
const char *failed(const char *what);

/* Memory of the controller's for code; -1 without. */
extern int code_file;
/* Whether the program may load libraries of directories. */
extern bool has_libraries;
/* The version of Landlock that restricts files; 0 if none does. */
extern int landlock_version;

/* Makes all system calls fail that the options do not allow; says why that is unavailable. */
const char *filter_calls(void);

#endif
