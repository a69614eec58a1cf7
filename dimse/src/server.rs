//! A receiver of C-STORE and C-ECHO.
