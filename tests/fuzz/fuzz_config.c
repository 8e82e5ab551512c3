/* fuzz_config.c - any bytes as the config.json beside a SafeTensors file with one
 * tensor: the description of the model and its hyperparameters. */
#include "fuzz.h"

#include "model/describe.h"
#include "model/hyper.h"

static const char safetensors[] =
    "\x40\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"
    "          \0\0\0\0";

static void put_file(const char *path, const void *data, size_t len) {
    FILE *f = fopen(path, "wb");
    FUZZ_CHECK(f != NULL);
    FUZZ_CHECK(fwrite(data, 1, len, f) == len);
    FUZZ_CHECK(fclose(f) == 0);
}

static void describe(const char *dir) {
    novaq_error err = {0};
    nq_tensors *ts = NULL;
    json_t *model = NULL;
    FUZZ_CHECK(nq_tensors_open(&ts, dir, &err) == NOVAQ_OK);
    novaq_status st = nq_describe(&model, ts, &err);
    fuzz_check_error(st, &err);
    if (st == NOVAQ_OK) {
        nq_hyper h;
        st = nq_hyper_read(&h, model, "fuzz", &err);
        fuzz_check_error(st, &err);
        const nq_rope_spec *r = &h.rope[NQ_GLOBAL];
        for (uint32_t i = 0; st == NOVAQ_OK && i < r->dim / 2; i++) {
            (void)nq_rope_angle(r, i, 64);
        }
    }
    json_decref(model);
    nq_tensors_close(&ts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char dir[] = "/dev/shm/novaq-fuzz-XXXXXX";
    char other[] = "/tmp/novaq-fuzz-XXXXXX";
    char model[64];
    char config[64];
    const char *at = mkdtemp(dir);
    at = at != NULL ? at : mkdtemp(other);
    FUZZ_CHECK(at != NULL);
    (void)snprintf(model, sizeof model, "%s/model.safetensors", at);
    (void)snprintf(config, sizeof config, "%s/config.json", at);
    put_file(model, safetensors, sizeof safetensors - 1);
    put_file(config, data, size);
    describe(at);
    (void)unlink(config);
    (void)unlink(model);
    (void)rmdir(at);
    return 0;
}
