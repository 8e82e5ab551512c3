/* hex.c - see hex.h. */
#include "base/hex.h"

void nq_hex(char *out, const uint8_t *bytes, size_t len) {
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digit[bytes[i] >> 4];
        out[2 * i + 1] = digit[bytes[i] & 15U];
    }
    out[2 * len] = '\0';
}

bool nq_is_hex(const char *s, size_t digits) {
    for (size_t i = 0; i < digits; i++) {
        bool ok = (s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f');
        if (!ok) {
            return false;
        }
    }
    return true;
}
