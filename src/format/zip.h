/* zip.h - the directory of a zip archive, as a container of stored records.
 *
 * Owns: end record, zip64, central directory, and checking each record's local
 * header against it. Reads only those, never the payload. Refuses: anything two
 * readers could understand differently (bytes before or behind the archive,
 * names twice, paths that lead elsewhere, records that overlap, a local header
 * that says something else), encryption, several disks, compressed records.
 */
#ifndef NQ_FORMAT_ZIP_H
#define NQ_FORMAT_ZIP_H

#include "format/names.h"
#include "io/source.h"

#define NQ_ZIP_DIRECTORY_MAX ((uint64_t)64 << 20) /* bytes of a central directory */

typedef struct nq_zip_entry {
    char *name;      /* NUL-terminated, relative, no ".." in it */
    uint64_t header; /* offset of the local header */
    uint64_t size;   /* bytes of content */
    uint64_t packed; /* bytes in the archive */
    uint32_t crc;
    uint16_t flags;
    uint16_t method; /* 0 = stored */
} nq_zip_entry;

typedef struct nq_zip {
    nq_zip_entry *entries; /* sorted by header */
    size_t count;
    nq_name *by_name;   /* index: in entries */
    char *names;        /* what nq_zip_entry.name points into */
    uint64_t directory; /* offset of the central directory: records end before it */
} nq_zip;

/* *out is empty on failure. */
NOVAQ_CHECK novaq_status nq_zip_open(nq_zip *out, nq_source *src, novaq_error *err);
void nq_zip_close(nq_zip *z);

/* NULL when there is none of that name. */
const nq_zip_entry *nq_zip_find(const nq_zip *z, const char *name);

/* Where a record's bytes begin, which its local header decides. */
NOVAQ_CHECK novaq_status nq_zip_locate(uint64_t *offset, const nq_zip *z, const nq_zip_entry *e,
                                       nq_source *src, novaq_error *err);

/* The same without reading, by what surrounds the record, if its bytes then begin at a
 * multiple of alignment; false: it must be looked at. *look: bytes from e->header on that
 * nq_zip_locate() needs to prove it. */
bool nq_zip_assume(uint64_t *offset, uint64_t *look, const nq_zip *z, const nq_zip_entry *e,
                   uint64_t alignment);

/* A whole record of at most max bytes, its CRC checked where there is one. *data: nq_free().
 * *offset: where it lies in the file. */
NOVAQ_CHECK novaq_status nq_zip_read(uint8_t **data, uint64_t *offset, const nq_zip *z,
                                     const nq_zip_entry *e, uint64_t max, nq_source *src,
                                     novaq_error *err);

#endif
