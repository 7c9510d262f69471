// tests/user/guest/u_cxx.cc - C++ exceptions: tables, unwinder and personality routine of the real library. nullptr, or what is wrong.
#include <algorithm>
#include <atomic>
#include <csignal>
#include <map>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace
{
int alive;
struct Counted {
    Counted() { alive++; }
    ~Counted() { alive--; }
};
struct Odd : std::runtime_error {
    int n;
    explicit Odd(int n) : std::runtime_error("odd " + std::to_string(n)), n(n) {}
};

__attribute__((noinline)) int thrower(int depth)
{
    Counted here;
    if (depth == 0)
        throw Odd(alive);
    return thrower(depth - 1) + alive;
}
int rethrown(int depth)
{
    try {
        return thrower(depth);
    } catch (const std::runtime_error &) {
        Counted again;
        try {
            throw;
        } catch (const Odd &o) {
            throw o.n + 1000;
        }
    }
}
} // namespace

extern "C" {
const char *ut_cxx_throw()
{
    for (int i = 0; i < 500; i++) {
        bool caught = false;
        try {
            thrower(i % 30);
        } catch (const Odd &o) {
            caught = o.n == i % 30 + 1 && o.what() == "odd " + std::to_string(o.n);
        }
        if (!caught || alive != 0)
            return "not caught as thrown, or objects left over";
    }
    return nullptr;
}

const char *ut_cxx_nested()
{
    for (int i = 0; i < 200; i++) {
        try {
            rethrown(i % 10);
            return "nothing was thrown";
        } catch (int n) {
            if (n != 1000 + i % 10 + 1 || alive != 0)
                return "the wrong value";
        }
        std::exception_ptr p;
        try {
            throw std::out_of_range("x");
        } catch (...) {
            p = std::current_exception();
        }
        try {
            std::rethrow_exception(p);
        } catch (const std::logic_error &e) {
            if (std::string(e.what()) != "x")
                return "exception_ptr lost it";
        }
    }
    return nullptr;
}

const char *ut_cxx_threads()
{
    static std::atomic<int> bad;
    std::vector<std::thread> all;
    for (int t = 0; t < 4; t++)
        all.emplace_back([t] {
            for (int i = 0; i < 200; i++)
                try {
                    std::vector<int> v(static_cast<size_t>(t) + 1);
                    v.at(static_cast<size_t>(t) + 1) = i;
                    bad++;
                } catch (const std::out_of_range &) {
                }
        });
    for (auto &t : all)
        t.join();
    return bad ? "a thread did not catch" : nullptr;
}

static void throw_segv(int) { throw std::domain_error("null"); }
// Compiled with -fnon-call-exceptions: unwinds through the signal frame.
const char *ut_cxx_from_signal()
{
    struct sigaction sa = {};
    sa.sa_handler = throw_segv;
    sa.sa_flags = SA_NODEFER;
    sigaction(SIGSEGV, &sa, nullptr);
    for (int i = 0; i < 100; i++) {
        bool caught = false;
        try {
            Counted here;
            volatile int *p = nullptr;
            *p = i;
        } catch (const std::domain_error &) {
            caught = true;
        }
        if (!caught || alive != 0)
            return "not thrown through the signal frame";
    }
    return nullptr;
}

const char *ut_cxx_standard()
{
    std::map<std::string, unsigned> m;
    for (unsigned i = 0; i < 20000; i++)
        m[std::to_string(i * 7919 % 5003)] += i;
    unsigned long long sum = 0, all = 0;
    for (const auto &[k, v] : m)
        sum += v;
    for (unsigned i = 0; i < 20000; i++)
        all += i;
    std::vector<unsigned> v(20000);
    unsigned x = 1;
    for (auto &e : v)
        e = x = x * 1103515245 + 12345;
    std::sort(v.begin(), v.end());
    if (!std::is_sorted(v.begin(), v.end()) || m.size() != 5003 || sum != all)
        return "wrong order or sum";
    try {
        v.resize(v.max_size() + 1);
        return "more elements than there can be";
    } catch (const std::exception &) {
    }
    return nullptr;
}
}
