#include "hv/lib/plain.h"

#define KEY_BELL   0x07u
#define KEY_ESCAPE 0x1bu

static enum plain behind_escape(uint8_t byte)
{
    switch (byte) {
    case '[':
    case 'O':
        return PLAIN_SEQUENCE;
    case 'P':
    case 'X':
    case ']':
    case '^':
    case '_':
        return PLAIN_STRING;
    default: /* intermediate bytes come before the last one */
        return byte >= ' ' && byte < '0' ? PLAIN_ESCAPE : PLAIN_TEXT;
    }
}

bool plain_is_text(enum plain *state, uint8_t byte)
{
    if (byte == '\n' || byte == '\r') {
        *state = PLAIN_TEXT;
        return true;
    }
    if (byte == KEY_ESCAPE) {
        *state = PLAIN_ESCAPE;
        return false;
    }
    switch (*state) {
    case PLAIN_ESCAPE:
        *state = behind_escape(byte);
        return false;
    case PLAIN_SEQUENCE:
        if (byte >= '@')
            *state = PLAIN_TEXT;
        return false;
    case PLAIN_STRING:
        if (byte == KEY_BELL)
            *state = PLAIN_TEXT;
        return false;
    default:
        return byte >= ' ' || byte == '\t' || byte == '\b';
    }
}
