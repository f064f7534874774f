// SPDX-License-Identifier: Apache-2.0
#include "tests/support/shm_namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace stoker::testing {
namespace {

std::string Failed(const char* call) { return absl::StrCat(call, ": ", strerror(errno)); }

bool WriteProc(const char* path, const std::string& text) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool done = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::close(fd);
  return done;
}

// As root of a user namespace of one user, whom it maps to ourselves.
std::string UnshareAsUser() {
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return Failed("unshare(CLONE_NEWUSER | CLONE_NEWNS)");
  if (!WriteProc("/proc/self/setgroups", "deny")) return Failed("write /proc/self/setgroups");
  if (!WriteProc("/proc/self/uid_map", absl::StrCat("0 ", uid, " 1"))) return Failed("write /proc/self/uid_map");
  if (!WriteProc("/proc/self/gid_map", absl::StrCat("0 ", gid, " 1"))) return Failed("write /proc/self/gid_map");
  return "";
}

}  // namespace

std::string EnterShmNamespace(uint64_t shm_bytes) {
  if (::unshare(CLONE_NEWNS) != 0) {
    if (std::string error = UnshareAsUser(); !error.empty()) return error;
  }
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return Failed("mount private /");
  const std::string options = absl::StrCat("mode=1777,size=", shm_bytes);
  if (::mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, options.c_str()) != 0) {
    return Failed("mount tmpfs on /dev/shm");
  }
  return "";
}

std::string ShmNamespaceSkipReason() {
  ChildProcess child([](int out) {
    const std::string error = EnterShmNamespace(1 << 20);
    ::dprintf(out, "%s", error.c_str());
  });
  const ChildResult result = child.Wait();
  return result.output.empty() ? "" : absl::StrCat("no private /dev/shm here: ", result.output);
}

ChildResult RunInShmNamespace(uint64_t shm_bytes, const std::function<void(int out)>& body) {
  ChildProcess child([&](int out) {
    const std::string error = EnterShmNamespace(shm_bytes);
    EXPECT_EQ(error, "");
    if (error.empty()) body(out);
  });
  return child.Wait();
}

}  // namespace stoker::testing
