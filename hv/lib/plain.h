/* Text without what steers a terminal: for output of somebody else's that is shown again, when a question to
 * the terminal or a change of its state would come a second time. */
#pragma once

#include "hv/lib/types.h"

/* Where in a control sequence the text is (ECMA-48, 5.4 and 5.6). All zero: in none. */
enum plain {
    PLAIN_TEXT,
    PLAIN_ESCAPE,   /* behind ESC */
    PLAIN_SEQUENCE, /* behind ESC [ or ESC O: up to a final byte */
    PLAIN_STRING,   /* behind ESC ] and its like: up to BEL or ESC \ */
};

/* The next byte: is it text? Lines, tabs and backspaces are. A new line ends whatever was cut off. */
bool plain_is_text(enum plain *state, uint8_t byte);
