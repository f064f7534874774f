// SPDX-License-Identifier: Apache-2.0
#include <google/protobuf/util/json_util.h>
#include <grpc/grpc.h>

#include "absl/strings/str_cat.h"
#include "client/python/src/bindings.h"
#include "shared/base/version.h"

namespace stoker::python {

std::atomic<int> calls_in_flight = 0;
std::atomic<bool> ending = false;

nb::str Text(absl::string_view text) {
  return nb::steal<nb::str>(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
}

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) throw StatusError(absl::InternalError(absl::StrCat("to JSON: ", status.ToString())));
  return json;
}

void FromJson(const std::string& json, google::protobuf::Message* message) {
  const auto status = google::protobuf::util::JsonStringToMessage(json, message);
  if (status.ok()) return;
  throw StatusError(absl::InvalidArgumentError(
      absl::StrCat(message->GetDescriptor()->name(), ": ", std::string(status.message()), ", in ", json)));
}

namespace {

// Raises stoker.errors' exception of the status.
void Raise(const absl::Status& status) {
  const nb::object make = nb::module_::import_("stoker.errors").attr("from_status");
  const nb::object error = make(static_cast<int>(status.code()), Text(status.message()));
  PyErr_SetObject(error.type().ptr(), error.ptr());
}

void Translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const StatusError& error) {
    Raise(error.status());
  }
}

}  // namespace
}  // namespace stoker::python

NB_MODULE(_stoker, module) {
  namespace python = stoker::python;
  nanobind::register_exception_translator(python::Translate);
  nanobind::set_leak_warnings(false);  // what is alive at exit is the user's, and was told to close
  module.attr("version") = stoker::kVersion;
  module.def("calls_in_flight", [] { return python::calls_in_flight.load(); });
  module.def("grpc_running", [] { return grpc_is_initialized() != 0; });
  module.def("end_calls", [] { python::ending = true; });
  python::BindBatch(module);
  python::BindLoader(module);
  python::BindClient(module);
  python::BindEmbedded(module);
}
