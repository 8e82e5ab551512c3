/* utf8.c - see utf8.h. */
#include "model/utf8.h"

int nq_utf8_whole(const uint8_t *s, size_t len) {
    uint8_t lead = s[0];
    if (lead < 0x80) {
        return 1;
    }
    int need = lead >= 0xC2 && lead <= 0xDF   ? 2
               : lead >= 0xE0 && lead <= 0xEF ? 3
               : lead >= 0xF0 && lead <= 0xF4 ? 4
                                              : 0;
    if (need == 0) {
        return -1;
    }
    for (int i = 1; i < need && (size_t)i < len; i++) {
        uint8_t low = 0x80;
        uint8_t high = 0xBF;
        if (i == 1) { /* no overlong forms, no surrogates, nothing above U+10FFFF */
            low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : low;
            high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : high;
        }
        if (s[i] < low || s[i] > high) {
            return -1;
        }
    }
    return len < (size_t)need ? 0 : need;
}
