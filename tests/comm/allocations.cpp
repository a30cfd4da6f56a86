/// Counts this thread's allocations. In a file of its own, lest g++ inlines one half of the pair and warns of a
/// mismatch.
#include <cstddef>
#include <cstdlib>
#include <new>

thread_local long allocations = 0;

void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* p = std::malloc(bytes == 0 ? 1 : bytes)) return p;
  throw std::bad_alloc();
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
