"""The only code that uses TVM. Importing it checks that the installed TVM is the release that was tried."""

from codesign.lowering.tvm_version import check_tvm_version

check_tvm_version()
