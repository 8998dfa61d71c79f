"""How long umlaan takes, against the bare commands it stands for and against Ansible.

``make bench-converge``. A program beside the project: umlaan never imports it.
"""
