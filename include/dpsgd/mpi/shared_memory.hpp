/// Memory of one rank that the other ranks of its host can read where it lies: what world::make_buffer gives.
///
///   the sender                                        a receiver
///   memory of no file (memfd), mapped                 maps the same pages, read-only, the first time it hears of them
///   sends a notice: which memory, where in it         reads what the notice says, and sends an empty answer
///   waits for the answer                              before which the sender writes nothing there
///
/// Notices and answers are MPI's messages, so every wait has its deadline, and what was written before a notice or an
/// answer is seen behind it. A memfd has no name: when the processes that map it are gone, however they went, so is the
/// memory. Nobody can write to another's.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dpsgd/core/buffer.hpp"
#include "dpsgd/core/error.hpp"

namespace dpsgd::mpi::detail {

/// Where a message lies in its sender's memory. Sent in the message's place.
struct notice {
  static constexpr std::uint64_t marked = 0x9c15a1f7e3d2480b;
  std::uint64_t mark;          // tells a notice from a message of the same length
  std::int32_t process, file;  // the sender's process id, and its descriptor of the memory
  std::uint64_t memory;        // inode: no two memories of a host have the same while they exist
  std::uint64_t size;          // bytes of the memory
  std::uint64_t at, bytes;     // of the message, in it
  std::uint64_t given_back;    // how many memories the sender has given back so far
};

/// One mapping of a memory, unmapped at the end. Movable.
class mapping {
 public:
  mapping(int file, std::size_t size, int protection)
      : address_(::mmap(nullptr, size, protection, MAP_SHARED, file, 0)), size_(size) {
    if (address_ == MAP_FAILED)
      fail("cannot map ", size, " bytes that ranks of one host share: ", std::strerror(errno));
  }
  mapping(mapping&& other) noexcept : address_(std::exchange(other.address_, MAP_FAILED)), size_(other.size_) {}
  mapping& operator=(mapping&& other) noexcept {
    std::swap(address_, other.address_), std::swap(size_, other.size_);
    return *this;
  }
  ~mapping() {
    if (address_ != MAP_FAILED) ::munmap(address_, size_);
  }
  char* data() const { return static_cast<char*>(address_); }
  std::size_t size() const { return size_; }

 private:
  void* address_;
  std::size_t size_;
};

/// A descriptor, closed at the end. Movable.
class descriptor {
 public:
  explicit descriptor(int file) : file_(file) {}
  descriptor(descriptor&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(file_, other.file_);
    return *this;
  }
  ~descriptor() {
    if (file_ >= 0) ::close(file_);
  }
  int get() const { return file_; }

 private:
  int file_;
};

/// The memories that this rank shares.
class own_memory {
 public:
  /// `size` zeroed bytes. Throws dpsgd::error when the system gives none (descriptors, address space, limits).
  char* make(std::size_t size) {
    rlimit largest{};  // beyond which a file's growth is a signal, not an error
    if (::getrlimit(RLIMIT_FSIZE, &largest) == 0)
      require(size <= largest.rlim_cur, "cannot make ", size,
              " bytes of memory that ranks of one host share: files are ", "limited to ", largest.rlim_cur,
              " (ulimit -f)");
    descriptor file(::memfd_create("dpsgd", MFD_CLOEXEC));
    if (file.get() < 0 || ::ftruncate(file.get(), static_cast<off_t>(size)) != 0)
      fail("cannot make ", size, " bytes of memory that ranks of one host share: ", std::strerror(errno));
    struct stat facts {};
    ::fstat(file.get(), &facts);
    mapping memory(file.get(), size, PROT_READ | PROT_WRITE);
    pieces_.push_back({std::move(file), std::move(memory), facts.st_ino});
    return pieces_.back().memory.data();
  }
  void give_back(const void* data) {
    std::erase_if(pieces_, [&](const piece& p) { return p.memory.data() == data; });
    ++given_back_;
  }
  /// Whether the message lies in one of them; if so, `where` says where.
  bool find(const void* data, std::size_t bytes, notice& where) const {
    const auto begin = reinterpret_cast<std::uintptr_t>(data);
    for (const piece& p : pieces_) {
      const auto at = begin - reinterpret_cast<std::uintptr_t>(p.memory.data());  // huge when it lies before
      if (at > p.memory.size() || bytes > p.memory.size() - at) continue;
      where = {notice::marked, static_cast<std::int32_t>(::getpid()), p.file.get(), p.inode, p.memory.size(), at, bytes,
               given_back_};
      return true;
    }
    return false;
  }

 private:
  struct piece {
    descriptor file;
    mapping memory;
    std::uint64_t inode;
  };
  std::vector<piece> pieces_;
  std::uint64_t given_back_ = 0;
};

/// What this rank has mapped of one other rank's memories.
class peer_memory {
 public:
  /// Where the message can be read. Maps its memory, when it is new. Throws dpsgd::error when that cannot be done.
  const void* at(const notice& where) {
    if (where.given_back != given_back_) views_.clear(), given_back_ = where.given_back;  // one of them is no more
    for (const view& v : views_)
      if (v.inode == where.memory) return v.memory.data() + where.at;
    const std::string path = text("/proc/", where.process, "/fd/", where.file);
    const descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat facts {};
    if (file.get() < 0 || ::fstat(file.get(), &facts) != 0)
      fail("cannot open memory of a rank of this host, ", path, ": ", std::strerror(errno));
    require(facts.st_ino == where.memory, path, " is not the memory that its rank wrote of");
    views_.push_back({mapping(file.get(), where.size, PROT_READ), where.memory});
    return views_.back().memory.data() + where.at;
  }

 private:
  struct view {
    mapping memory;
    std::uint64_t inode;
  };
  std::vector<view> views_;
  std::uint64_t given_back_ = 0;
};

/// n elements of T in `own`, which lives as long as they do.
template <class T>
buffer<T> shared_buffer(const std::shared_ptr<own_memory>& own, std::size_t n) {
  require(n <= static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) / sizeof(T),
          "a buffer of so many elements cannot be: ", n);
  T* const data = reinterpret_cast<T*>(own->make(n * sizeof(T)));
  return {std::shared_ptr<T[]>(data, [own](T* p) { own->give_back(p); }), n};
}

}  // namespace dpsgd::mpi::detail
