/// Files that survive: after a crash, a full disk or a power cut there is the old file or the new one, whole.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "dpsgd/core/error.hpp"

namespace dpsgd {

namespace detail {

/// An open file, closed at the end of its scope.
class file_descriptor {
 public:
  explicit file_descriptor(int fd = -1) : fd_(fd) {}
  file_descriptor(file_descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  file_descriptor& operator=(file_descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~file_descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

/// While it lives, a write past the limit on file sizes fails with EFBIG in this thread instead of killing the process
/// (SIGXFSZ). The rest of the process keeps its own handling of the signal.
class no_file_size_signal {
 public:
  no_file_size_signal() {
    sigset_t pending;
    sigemptyset(&signal_), sigaddset(&signal_, SIGXFSZ);
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGXFSZ) == 1;
    pthread_sigmask(SIG_BLOCK, &signal_, &before_);
  }
  no_file_size_signal(const no_file_size_signal&) = delete;
  no_file_size_signal& operator=(const no_file_size_signal&) = delete;
  ~no_file_size_signal() {
    const int reason = errno;
    const timespec at_once{0, 0};
    if (!was_pending_) sigtimedwait(&signal_, nullptr, &at_once);  // take back the one that our write raised
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    errno = reason;
  }

 private:
  sigset_t signal_, before_;
  bool was_pending_;
};

/// All `size` bytes, or false with errno set (some may have been written).
inline bool write_all(int fd, const void* bytes, std::size_t size) {
  const no_file_size_signal guard;
  const char* from = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t wrote = ::write(fd, from, size);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) {
      if (wrote == 0) errno = EIO;
      return false;
    }
    from += wrote, size -= static_cast<std::size_t>(wrote);
  }
  return true;
}

/// Makes names in `directory` (a new file, a rename) durable. False with errno set when that failed.
inline bool sync_directory(const std::filesystem::path& directory) {
  const file_descriptor fd(::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd && (::fsync(fd.get()) == 0 || errno == EINVAL);  // EINVAL: this file system needs no such thing
}

}  // namespace detail

/// A file being written that replaces `target` in one step, at commit(). Until then, and if anything fails, `target` is
/// as it was. The bytes go to a temporary name beside it (target.XXXXXXXX.part), which is removed unless committed;
/// only a killed process leaves one behind. A target that exists and is no plain file (/dev/stdout, a pipe) is written
/// directly. Every member throws dpsgd::error, naming the file and the system's reason. Cost: two fsyncs, in commit().
class durable_file {
 public:
  explicit durable_file(const std::filesystem::path& target) : target_(target) {
    std::error_code none;
    if (std::filesystem::is_symlink(target_, none)) target_ = std::filesystem::weakly_canonical(target_, none);
    const auto kind = std::filesystem::status(target_, none).type();
    if (kind == std::filesystem::file_type::directory) fail("cannot write ", target_.string(), ": it is a directory");
    if (kind == std::filesystem::file_type::regular || kind == std::filesystem::file_type::not_found) {
      std::uint32_t unique = 0;
      if (::getrandom(&unique, sizeof unique, 0) != sizeof unique) unique = static_cast<std::uint32_t>(::getpid());
      temporary_ = target_;
      temporary_ += "." + std::to_string(unique) + ".part";
      fd_ = detail::file_descriptor(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    } else {
      fd_ = detail::file_descriptor(::open(target_.c_str(), O_WRONLY | O_CLOEXEC));
    }
    if (!fd_) stop("cannot create it", errno);
  }
  durable_file(const durable_file&) = delete;
  durable_file& operator=(const durable_file&) = delete;
  ~durable_file() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  void write(const void* bytes, std::size_t size) {
    if (!detail::write_all(fd_.get(), bytes, size)) stop("cannot write to it", errno);
  }
  void write(std::string_view bytes) { write(bytes.data(), bytes.size()); }

  /// The new content is on the disk under the target's name when this returns.
  void commit() {
    if (temporary_.empty()) return;
    if (::fsync(fd_.get()) != 0) stop("cannot bring it to the disk", errno);
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) stop("cannot give it its name", errno);
    temporary_.clear();
    if (!detail::sync_directory(target_.parent_path())) stop("cannot bring its directory to the disk", errno);
  }

 private:
  [[noreturn]] void stop(const char* what, int reason) const {
    fail("file ", target_.string(), ": ", what, " (", std::strerror(reason),
         temporary_.empty() ? ")" : "); what stood under that name before is untouched");
  }

  std::filesystem::path target_, temporary_;  // temporary_ is empty: nothing to remove
  detail::file_descriptor fd_;
};

/// Writes a whole file durably: see durable_file.
inline void write_durably(const std::filesystem::path& target, std::string_view bytes) {
  durable_file file(target);
  file.write(bytes);
  file.commit();
}

}  // namespace dpsgd
