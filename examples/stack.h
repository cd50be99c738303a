/* A small stack of numbers; stack.c implements it, calculate.c uses it. */
#ifndef STACK_H
#define STACK_H

#include <stdbool.h>

bool push(double value);  /* false when the stack is full */
bool pop(double *value);  /* false when the stack is empty */

#endif
