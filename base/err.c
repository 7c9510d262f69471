#include "base/err.h"
#include <stdlib.h>

const char *err_text(int code)
{
    static const char *const text[] = {
        "no error",
#define ERR(name, t) t,
#include "base/err.def"
#undef ERR
    };
    unsigned n = (unsigned)abs(code);
    return n < sizeof text / sizeof text[0] ? text[n] : "unknown error";
}
