/* base/err.h - host error codes. Functions return 0 or -RD_E_*. Guest events are never errors (see monitor/vcpu.h). */
#ifndef BASE_ERR_H
#define BASE_ERR_H
enum rd_err {
    RD_E_NONE = 0,
#define ERR(name, text) RD_E_##name,
#include "base/err.def"
#undef ERR
};
/* Text of a code, sign ignored. */
const char *err_text(int code);
#endif
