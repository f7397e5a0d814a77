/* What is typed: the console's own key, the prompt, and the way into a VM's serial port. Only the CPU that
 * polls. A part of hv/console/console.c. */
#pragma once

#include "hv/console/console.h"

void console_input_init(void);
/* One byte from the port. */
void console_input_take(uint8_t byte);
/* Typed bytes wait for a VM. */
bool console_input_waits(void);
/* Gives each VM what its serial port has room for. */
void console_input_deliver(void);
