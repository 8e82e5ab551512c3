/* test_progress.c - the progress line (cli/progress.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <signal.h>
#include <string.h>

#include "../../cli/progress.h"

static novaq_progress report_of(uint64_t done, uint64_t total, const char *item) {
    return (novaq_progress){
        .phase = "compress", .item = item, .done = done, .total = total, .unit = "B", .value = NAN};
}

static void test_bar_rate_and_eta(void **state) {
    (void)state;
    char line[200];
    novaq_progress r = report_of(50000000, 200000000, "blk.0.ffn_up.weight");
    progress_format(line, sizeof line, &r, r.done, 5.0, 199);
    assert_non_null(strstr(line, "compress [======>"));
    assert_non_null(strstr(line, " 25%"));
    assert_non_null(strstr(line, "10.0 MB/s"));
    assert_non_null(strstr(line, "ETA 0:15"));
    assert_non_null(strstr(line, "blk.0.ffn_up.weight"));
}

static void test_full_bar_and_value(void **state) {
    (void)state;
    char line[200];
    novaq_progress r = report_of(7, 7, "");
    r.unit = "chunks";
    r.value = 27.84;
    progress_format(line, sizeof line, &r, 9, 3600.0 * 2, 199);
    assert_non_null(strstr(line, "[========================] 100%"));
    assert_non_null(strstr(line, "27.8400"));
}

/* What came over the network, and tensors, where there is anything to tell of. */
static void test_network(void **state) {
    (void)state;
    char line[200];
    novaq_progress r = report_of(50000000, 200000000, "x");
    progress_format(line, sizeof line, &r, r.done, 5.0, 199);
    assert_null(strstr(line, "net"));
    r.received = 60000000;
    progress_format(line, sizeof line, &r, r.done, 5.0, 199);
    assert_non_null(strstr(line, "10.0 MB/s  ETA 0:15  net 60.0 MB 12.0 MB/s  x"));
    r.items = 7;
    r.items_total = 272;
    progress_format(line, sizeof line, &r, r.done, 5.0, 199);
    assert_non_null(strstr(line, "net 60.0 MB 12.0 MB/s  7/272  x"));
    assert_true(strlen(line) < 80); /* all figures fit a terminal */
}

static void test_unknown_total(void **state) {
    (void)state;
    char line[200];
    novaq_progress r = report_of(1234, 0, "");
    progress_format(line, sizeof line, &r, r.done, 0.1, 199);
    assert_string_equal(line, "compress  1.2 kB");
}

/* A name from a file reaches no terminal as it is, and the line fits. */
static void test_hostile_names_and_width(void **state) {
    (void)state;
    char line[200];
    novaq_progress r = report_of(1, 2,
                                 "a\x1b[2J\r\nb\xc2\x9b"
                                 "c");
    progress_format(line, sizeof line, &r, r.done, 1.0, 199);
    for (const char *p = line; *p != '\0'; p++) {
        assert_true((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f);
    }
    progress_format(line, sizeof line, &r, r.done, 1.0, 20);
    assert_int_equal(strlen(line), 20);
}

static void test_never_backwards(void **state) {
    (void)state;
    progress p;
    progress_begin(&p, false);
    p.drawn = 1e300; /* nothing is due, so nothing is drawn */
    novaq_progress r = report_of(60, 100, "");
    assert_int_equal(progress_callback(&p, &r), 0);
    r.done = 40;
    assert_int_equal(progress_callback(&p, &r), 0);
    assert_int_equal(p.peak, 60);
    r.phase = "verify"; /* a new phase begins anew */
    assert_int_equal(progress_callback(&p, &r), 0);
    assert_int_equal(p.peak, 40);
    progress_end(&p);
}

static void test_interrupt_stops(void **state) {
    (void)state;
    progress p;
    progress_begin(&p, true);
    novaq_progress r = report_of(1, 2, "");
    assert_int_equal(progress_callback(&p, &r), 0);
    assert_int_equal(raise(SIGINT), 0);
    assert_true(interrupt_seen());
    assert_int_not_equal(progress_callback(&p, &r), 0);
    /* The next one would kill. */
    struct sigaction now;
    assert_int_equal(sigaction(SIGINT, NULL, &now), 0);
    assert_true(now.sa_handler == SIG_DFL);
    progress_end(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bar_rate_and_eta),
        cmocka_unit_test(test_full_bar_and_value),
        cmocka_unit_test(test_network),
        cmocka_unit_test(test_unknown_total),
        cmocka_unit_test(test_hostile_names_and_width),
        cmocka_unit_test(test_never_backwards),
        cmocka_unit_test(test_interrupt_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
