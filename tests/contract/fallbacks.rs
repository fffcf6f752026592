//! What goes over the wire where a server lacks an extension.
