/* The host's serial port: COM1, 115200 baud, 8N1. */
#pragma once

#include "hv/console/console.h"

/* Programs the port. A machine without one is noticed: output then goes nowhere, input never comes. */
const struct console_port *uart_hw_init(void);
