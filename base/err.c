#include "base/err.h"

const char *err_text(int code)
{
    static const char *const text[] = {
        "no error",
#define ERR(name, t) t,
#include "base/err.def"
#undef ERR
    };
    unsigned n = code < 0 ? 0u - (unsigned)code : (unsigned)code;
    return n < sizeof text / sizeof text[0] ? text[n] : "unknown error";
}
