#include "base/stat.h"
#include "base/err.h"
#include <inttypes.h>

static void counted(FILE *f, const char *name, bool known, uint64_t n)
{
    if (known)
        fprintf(f, "  \"%s\": %" PRIu64 ",\n", name, n);
    else
        fprintf(f, "  \"%s\": null,\n", name);
}

int stat_write_json(const struct stats *s, FILE *f, const char *(*kind_name)(unsigned))
{
    fprintf(f, "{\n");
#define STAT(name, text) fprintf(f, "  \"%s\": %" PRIu64 ",\n", #name, s->name);
#include "base/stat.def"
#undef STAT
#define STAT(name, text) counted(f, #name, s->counted, s->name);
#include "base/stat_counted.def"
#undef STAT
    fprintf(f, "  \"ident_share\": %.4f,\n",
            s->insn_translated ? (double)(s->insn_ident + s->insn_mem) / (double)s->insn_translated : 0.0);
    fprintf(f, "  \"ccf_per_tu_byte\": %.3f,\n", s->tu_bytes ? (double)s->ccf_bytes / (double)s->tu_bytes : 0.0);
    fprintf(f, "  \"callouts_by_kind\": {");
    const char *sep = "";
    for (unsigned i = 0; kind_name && i < sizeof s->callout_kind / sizeof s->callout_kind[0]; i++)
        if (s->callout_kind[i]) {
            fprintf(f, "%s\"%s\": %" PRIu64, sep, kind_name(i), s->callout_kind[i]);
            sep = ", ";
        }
    fprintf(f, "},\n  \"exceptions_by_vector\": {");
    sep = "";
    for (unsigned i = 0; i < 32; i++)
        if (s->exception_vec[i]) {
            fprintf(f, "%s\"%u\": %" PRIu64, sep, i, s->exception_vec[i]);
            sep = ", ";
        }
    fprintf(f, "}");
    if (s->acct.wall_ns) {
        fprintf(f, ",\n");
        acct_write_json(&s->acct, f, kind_name);
    }
    fprintf(f, "\n}\n");
    return ferror(f) ? -RD_E_IO : 0;
}
